import { Page } from '../parts';

export default function ConnectorsPage() {
  return <Page title="Connectors">…</Page>;
}
