import '@mantine/core/styles.css';
import '@mantine/notifications/styles.css';
import '@mantine/spotlight/styles.css';
import './style.css';

import { MantineProvider } from '@mantine/core';
import { Notifications } from '@mantine/notifications';
import { MutationCache, QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { Refused, words } from './api/client';
import { App } from './App';
import { tell } from './parts/tell';
import { theme } from './theme';

/** The gateway's, for the styles a library adds: the page's policy lets in no others. */
export const NONCE = document.querySelector<HTMLMetaElement>('meta[name="rootlink-nonce"]')?.content ?? '';

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 30_000, // what changes is told of (live.ts)
      retry: (failed, error) => failed < 3 && error instanceof Refused && (error.status === 0 || error.status === 503),
    },
  },
  mutationCache: new MutationCache({
    onError: (error, _variables, _context, mutation) => {
      if (mutation.options.onError === undefined) tell.failed(words(error));
      if (error instanceof Refused && error.status === 401) void queries.invalidateQueries({ queryKey: ['session'] });
    },
  }),
});

if (location.pathname === '/') history.replaceState(null, '', '/console/'); // the router's base

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <MantineProvider theme={theme} defaultColorScheme="auto" getStyleNonce={() => NONCE}>
      <QueryClientProvider client={queries}>
        <Notifications position="top-right" />
        <App />
      </QueryClientProvider>
    </MantineProvider>
  </StrictMode>,
);
