import { Page } from '../parts';

export default function OverviewPage() {
  return <Page title="Overview">…</Page>;
}
