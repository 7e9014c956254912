import { Page } from '../parts';

export default function ActivityPage() {
  return <Page title="Activity">…</Page>;
}
