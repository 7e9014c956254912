import { Page } from '../parts';

export default function FunctionPage() {
  return <Page title="Function">…</Page>;
}
