import { ActionIcon, AppShell, Badge, Burger, Group, Menu, NavLink, Stack, Text, Tooltip, UnstyledButton, useMantineColorScheme } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { IconMoon, IconSearch, IconSun, IconUser } from '@tabler/icons-react';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { type ReactNode, useContext } from 'react';
import { Link, useLocation, useRouter } from 'wouter';
import { api, told } from './api/client';
import { useLive } from './live';
import { PLACES } from './pages';
import { Finder, openFinder } from './parts/Finder';
import { ProjectContext } from './session';

/** What is around every page: where you are, where you can go, how sure the walls are, who is connected. */
export function Frame({ children }: { children: ReactNode }) {
  const project = useContext(ProjectContext);
  const [open, { toggle, close }] = useDisclosure(false);
  return (
    <AppShell
      header={{ height: 48 }}
      navbar={{ width: 200, breakpoint: 'sm', collapsed: { mobile: !open } }}
      footer={{ height: 56, collapsed: false, offset: true }}
      padding="md"
      className="frame"
    >
      <AppShell.Header px="md">
        <Group h="100%" justify="space-between" wrap="nowrap">
          <Group gap="sm" wrap="nowrap">
            <Burger opened={open} onClick={toggle} hiddenFrom="sm" size="sm" aria-label="All pages" />
            <Switcher />
          </Group>
          <Group gap="sm" wrap="nowrap">
            {project !== null && <Live project={project.name} />}
            {project !== null && (
              <Tooltip label="Find anything (⌘K)">
                <ActionIcon variant="default" onClick={openFinder} aria-label="Find anything"><IconSearch size={16} /></ActionIcon>
              </Tooltip>
            )}
            <Theme />
            <Who />
          </Group>
        </Group>
      </AppShell.Header>
      <AppShell.Navbar p="sm">{project !== null && <Places onGo={close} />}</AppShell.Navbar>
      <AppShell.Main>{children}</AppShell.Main>
      <AppShell.Footer hiddenFrom="sm">{project !== null && <Bar />}</AppShell.Footer>
      {project !== null && <Finder />}
    </AppShell>
  );
}

function Places({ onGo }: { onGo: () => void }) {
  const [here] = useLocation();
  return (
    <Stack gap={2} component="nav" aria-label="Pages">
      {PLACES.map(({ path, title, icon: Icon }) => (
        <NavLink key={path} component={Link} href={path} label={title} leftSection={<Icon size={16} stroke={1.6} />}
          active={here.startsWith(path)} aria-current={here.startsWith(path) ? 'page' : undefined} onClick={onGo} />
      ))}
    </Stack>
  );
}

function Bar() {
  const [here] = useLocation();
  return (
    <Group component="nav" aria-label="Main pages" grow gap={0} h="100%">
      {PLACES.filter(({ first }) => first).map(({ path, title, icon: Icon }) => (
        <UnstyledButton key={path} component={Link} href={path} aria-current={here.startsWith(path) ? 'page' : undefined} p={4} ta="center"
          c={here.startsWith(path) ? 'root.7' : undefined}>
          <Icon size={20} stroke={1.6} />
          <Text fz={11}>{title}</Text>
        </UnstyledButton>
      ))}
    </Group>
  );
}

function Switcher() {
  const project = useContext(ProjectContext);
  const { base } = useRouter();
  const [, go] = useLocation();
  const projects = useQuery({ queryKey: ['projects'], queryFn: () => told(api.GET('/v1/projects', {})) });
  return (
    <Menu position="bottom-start">
      <Menu.Target>
        <UnstyledButton aria-label={`Project ${project?.name ?? 'none'}: change`}><Text fw={600}>● {project?.name ?? 'Rootlink'} ▾</Text></UnstyledButton>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>Projects</Menu.Label>
        {projects.data?.map((one) => (
          <Menu.Item key={one.id} onClick={() => go(`~/console/p/${encodeURIComponent(one.name)}/connectors`)} data-base={base}>{one.name}</Menu.Item>
        ))}
      </Menu.Dropdown>
    </Menu>
  );
}

/** The sandbox tier, and whether this page hears of changes. */
function Live({ project }: { project: string }) {
  const live = useLive(project);
  const engine = useQuery({
    queryKey: ['engine', project],
    queryFn: () => told(api.GET('/v1/projects/{p}/engine', { params: { path: { p: project } } })),
  });
  const kernel = engine.data?.sandbox === 'kernel';
  return (
    <Group gap="xs" wrap="nowrap" visibleFrom="xs">
      {!live && <Badge color="amber" variant="light">reconnecting</Badge>}
      {engine.data !== undefined && (
        <Tooltip label={kernel ? 'The kernel lets nothing out but what is allowed' : 'Advisory: programs here are asked to keep to the list, not made to'}>
          <Badge color={kernel ? 'root' : 'amber'} variant="light">{kernel ? 'kernel-gated' : 'advisory'}</Badge>
        </Tooltip>
      )}
    </Group>
  );
}

function Theme() {
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  const dark = colorScheme === 'dark' || (colorScheme === 'auto' && matchMedia('(prefers-color-scheme: dark)').matches);
  return (
    <ActionIcon variant="subtle" color="gray" onClick={() => setColorScheme(dark ? 'light' : 'dark')} aria-label={dark ? 'Light' : 'Dark'}>
      {dark ? <IconSun size={16} /> : <IconMoon size={16} />}
    </ActionIcon>
  );
}

function Who() {
  const queries = useQueryClient();
  const [, go] = useLocation();
  const leave = useMutation({
    mutationFn: () => told(api.DELETE('/v1/session', {})),
    onSuccess: () => {
      queries.clear();
      location.assign('/');
    },
  });
  return (
    <Menu position="bottom-end">
      <Menu.Target><ActionIcon variant="subtle" color="gray" aria-label="Your account"><IconUser size={16} /></ActionIcon></Menu.Target>
      <Menu.Dropdown>
        <Menu.Item onClick={() => go('~/console/account')}>Account and sessions</Menu.Item>
        <Menu.Item onClick={() => leave.mutate()}>Sign out</Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}
