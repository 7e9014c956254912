import { Page } from '../parts';

export default function AgentsPage() {
  return <Page title="Agents">…</Page>;
}
