import { Page } from '../parts';

export default function CustomPage() {
  return <Page title="Custom">…</Page>;
}
