import { Page } from '../parts';

export default function MembersPage() {
  return <Page title="Members">…</Page>;
}
