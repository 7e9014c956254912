import { useQueryClient } from '@tanstack/react-query';
import { useEffect, useState } from 'react';

/** What may change, and the first member of the keys of the queries that ask for it: `['connections', project, …]`. */
export const TOPICS = [
  'connections', 'tools', 'servers', 'functions', 'runs', 'usage', 'agents', 'secrets', 'egress', 'decisions', 'keys', 'activity',
  'engine', 'members', 'projects',
] as const;
export type Topic = (typeof TOPICS)[number];

/** Follows what changes in a project: whatever is told of is asked for again, everything after a break. False: not connected. */
export function useLive(project: string): boolean {
  const queries = useQueryClient();
  const [live, setLive] = useState(true);
  useEffect(() => {
    let again = false;
    const source = new EventSource(`/v1/projects/${encodeURIComponent(project)}/events`);
    source.addEventListener('open', () => {
      setLive(true);
      if (again) void queries.invalidateQueries();
      again = true;
    });
    source.addEventListener('changed', (event: MessageEvent<string>) => {
      const { topics } = JSON.parse(event.data) as { topics: string[] };
      for (const topic of topics) void queries.invalidateQueries({ queryKey: [topic] });
    });
    source.addEventListener('error', () => setLive(false));
    return () => source.close();
  }, [project, queries]);
  return live;
}
