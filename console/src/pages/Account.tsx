import { Page } from '../parts';

export default function AccountPage() {
  return <Page title="Account">…</Page>;
}
