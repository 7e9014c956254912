import { createSpotlight, Spotlight } from '@mantine/spotlight';
import { useLocation } from 'wouter';
import { PLACES } from '../pages';

const [store, finder] = createSpotlight();
export const openFinder = () => finder.open();

/** ⌘K: pages, connectors, tools, actions. */
export function Finder() {
  const [, go] = useLocation();
  const actions = PLACES.map(({ path, title }) => ({ id: path, label: title, group: 'Pages', onClick: () => go(path) }));
  return (
    <Spotlight store={store} shortcut={['mod + K']} actions={[{ group: 'Pages', actions }]} nothingFound="Nothing found"
      searchProps={{ placeholder: 'Find a page, connector, tool or action', 'aria-label': 'Find' }} />
  );
}
