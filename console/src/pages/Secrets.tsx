import { Page } from '../parts';

export default function SecretsPage() {
  return <Page title="Secrets">…</Page>;
}
