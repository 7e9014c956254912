import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

// Everything is served from our own origin under /console/, and nothing is inline: the page's Content-Security-Policy allows neither.
export default defineConfig({
  base: '/console/',
  plugins: [react()],
  build: {
    target: 'es2023',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    sourcemap: false,
    chunkSizeWarningLimit: 1000,
  },
});
