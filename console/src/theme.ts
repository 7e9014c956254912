import { createTheme, type MantineColorsTuple } from '@mantine/core';

// One accent, a root green; amber needs you, red is refused or failed. The shades used for text and filled buttons are AA on both themes.
const root: MantineColorsTuple = [
  '#e9f8ef', '#d3eedf', '#a6dcbf', '#75ca9c', '#4dba7f', '#33b06d', '#24995b', '#177a46', '#106138', '#084a29',
];

const amber: MantineColorsTuple = [
  '#fff6e0', '#ffecc4', '#fbd98c', '#f7c350', '#f4b125', '#e09a0c', '#b87a00', '#8f5e00', '#754c00', '#5c3b00',
];

export const theme = createTheme({
  primaryColor: 'root',
  primaryShade: { light: 7, dark: 7 },
  autoContrast: true,
  luminanceThreshold: 0.35,
  colors: { root, amber },
  defaultRadius: 'sm',
  fontFamily: 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif',
  fontFamilyMonospace: 'ui-monospace, SFMono-Regular, Menlo, Consolas, monospace',
  headings: { fontWeight: '600', sizes: { h1: { fontSize: '1.25rem' }, h2: { fontSize: '1.05rem' }, h3: { fontSize: '0.95rem' } } },
  spacing: { xs: '4px', sm: '8px', md: '16px', lg: '24px', xl: '32px' },
});
