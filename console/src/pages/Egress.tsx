import { Page } from '../parts';

export default function EgressPage() {
  return <Page title="Egress">…</Page>;
}
