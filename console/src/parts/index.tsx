// Small things every page has.
import { ActionIcon, Alert, Box, Button, Center, Code, CopyButton, Group, Loader, Stack, Text, Title, Tooltip } from '@mantine/core';
import { useInterval } from '@mantine/hooks';
import { IconCheck, IconCopy } from '@tabler/icons-react';
import type { UseQueryResult } from '@tanstack/react-query';
import { type ReactNode, useEffect, useState } from 'react';
import { words } from '../api/client';

/** A page: its title (also the tab's), one line on what it is, and its main actions. */
export function Page({ title, about, actions, children }: { title: string; about?: ReactNode; actions?: ReactNode; children: ReactNode }) {
  useEffect(() => {
    document.title = `${title} · Rootlink`;
  }, [title]);
  return (
    <Stack gap="md">
      <Group justify="space-between" align="flex-start">
        <div>
          <Title order={1}>{title}</Title>
          {about !== undefined && <Text size="sm" c="dimmed">{about}</Text>}
        </div>
        {actions !== undefined && <Group gap="sm">{actions}</Group>}
      </Group>
      {children}
    </Stack>
  );
}

/** What a query gave; meanwhile that it is asked for, or why there is nothing. */
export function Loaded<T>({ query, children }: { query: UseQueryResult<T>; children: (data: T) => ReactNode }) {
  if (query.data !== undefined) return <>{children(query.data)}</>;
  if (query.error !== null) return <Problem error={query.error} again={() => void query.refetch()} />;
  return <Center p="xl"><Loader size="sm" aria-label="Loading" /></Center>;
}

export function Problem({ error, again }: { error: unknown; again?: () => void }) {
  return (
    <Alert color="red" title="That did not work" role="alert">
      <Stack gap="sm" align="flex-start">
        <Text size="sm">{words(error)}</Text>
        {again !== undefined && <Button size="xs" variant="default" onClick={again}>Try again</Button>}
      </Stack>
    </Alert>
  );
}

/** Nothing here yet: what it would be, what to do, and the command that does it. */
export function Empty({ title, children, command, action }: { title: string; children: ReactNode; command?: string; action?: ReactNode }) {
  return (
    <Stack align="center" gap="sm" p="xl" ta="center">
      <Text fw={600}>{title}</Text>
      <Text size="sm" c="dimmed" maw={480}>{children}</Text>
      {action}
      {command !== undefined && <Copyable text={command} />}
    </Stack>
  );
}

/** Text a person takes elsewhere: a URL, a command, an id. */
export function Copyable({ text, shown }: { text: string; shown?: string }) {
  return (
    <Group gap={4} wrap="nowrap">
      <Code className="mono">{shown ?? text}</Code>
      <Copy text={text} />
    </Group>
  );
}

export function Copy({ text }: { text: string }) {
  return (
    <CopyButton value={text}>
      {({ copied, copy }) => (
        <Tooltip label={copied ? 'Copied' : 'Copy'}>
          <ActionIcon variant="subtle" color="gray" size="sm" onClick={copy} aria-label={copied ? 'Copied' : 'Copy'}>
            {copied ? <IconCheck size={14} /> : <IconCopy size={14} />}
          </ActionIcon>
        </Tooltip>
      )}
    </CopyButton>
  );
}

const STEPS: [number, Intl.RelativeTimeFormatUnit][] = [[60, 'second'], [3600, 'minute'], [86_400, 'hour'], [Infinity, 'day']];
const SECONDS: Partial<Record<Intl.RelativeTimeFormatUnit, number>> = { second: 1, minute: 60, hour: 3600, day: 86_400 };
const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto', style: 'short' });

/** A moment (RFC 3339), relative; the exact one on hover. */
export function When({ at }: { at: string | null | undefined }) {
  const [now, setNow] = useState(() => Date.now());
  useInterval(() => setNow(Date.now()), 10_000, { autoInvoke: true });
  if (at === null || at === undefined || at === '') return <Text span c="dimmed">never</Text>;
  const date = new Date(at);
  const secs = Math.min(0, (date.getTime() - now) / 1000) || (date.getTime() - now) / 1000;
  const unit = STEPS.find(([under]) => Math.abs(secs) < under)![1];
  return (
    <Tooltip label={date.toLocaleString()}>
      <time dateTime={at}>{Math.abs(secs) < 5 ? 'now' : relative.format(Math.round(secs / SECONDS[unit]!), unit)}</time>
    </Tooltip>
  );
}

export type Tone = 'good' | 'waits' | 'bad' | 'quiet';
const COLORS: Record<Tone, string> = { good: 'root', waits: 'amber', bad: 'red', quiet: 'gray' };
const SIGNS: Record<Tone, string> = { good: '●', waits: '▲', bad: '■', quiet: '○' };

/** A state in words; the sign before it differs in shape, so it is told without colours too. */
export function State({ tone, children }: { tone: Tone; children: ReactNode }) {
  return (
    <Group gap={6} wrap="nowrap">
      <Box component="span" c={COLORS[tone]} aria-hidden fz={10}>{SIGNS[tone]}</Box>
      <Text span size="sm">{children}</Text>
    </Group>
  );
}

/** Anything as text: JSON if it is no string. What comes from tools, logs and functions is shown with this, and never as markup. */
export function Raw({ value, label }: { value: unknown; label?: string }) {
  return <pre className="raw" tabIndex={0} aria-label={label ?? 'Raw answer'}>{typeof value === 'string' ? value : JSON.stringify(value, null, 2)}</pre>;
}
