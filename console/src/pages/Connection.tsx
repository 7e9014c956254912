import { Page } from '../parts';

export default function ConnectionPage() {
  return <Page title="Connection">…</Page>;
}
