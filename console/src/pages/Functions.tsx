import { Page } from '../parts';

export default function FunctionsPage() {
  return <Page title="Functions">…</Page>;
}
