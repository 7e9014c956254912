import { IconActivity, IconChartBar, IconFunction, IconKey, IconLock, IconPlugConnected, IconRobot, IconShieldCheck, IconUsers } from '@tabler/icons-react';
import { type ComponentType, type LazyExoticComponent, lazy } from 'react';

export interface Place {
  /** Under `/console/p/<project>`. */
  path: string;
  title: string;
  icon: ComponentType<{ size?: number; stroke?: number }>;
  page: LazyExoticComponent<ComponentType>;
  /** On a phone's bar at the bottom. */
  first?: boolean;
}

/** The pages of a project, in the order of the sidebar; ⌘K finds them too. */
export const PLACES: Place[] = [
  { path: '/overview', title: 'Overview', icon: IconChartBar, page: lazy(() => import('./pages/Overview')), first: true },
  { path: '/connectors', title: 'Connectors', icon: IconPlugConnected, page: lazy(() => import('./pages/Connectors')), first: true },
  { path: '/functions', title: 'Functions', icon: IconFunction, page: lazy(() => import('./pages/Functions')), first: true },
  { path: '/egress', title: 'Egress', icon: IconShieldCheck, page: lazy(() => import('./pages/Egress')), first: true },
  { path: '/secrets', title: 'Secrets', icon: IconLock, page: lazy(() => import('./pages/Secrets')) },
  { path: '/agents', title: 'Agents', icon: IconRobot, page: lazy(() => import('./pages/Agents')) },
  { path: '/keys', title: 'Keys', icon: IconKey, page: lazy(() => import('./pages/Keys')) },
  { path: '/activity', title: 'Activity', icon: IconActivity, page: lazy(() => import('./pages/Activity')) },
  { path: '/members', title: 'Members', icon: IconUsers, page: lazy(() => import('./pages/Members')) },
];

/** Pages below one of them, with what their path names. */
export const BELOW: { path: string; page: LazyExoticComponent<ComponentType> }[] = [
  { path: '/connectors/custom', page: lazy(() => import('./pages/Custom')) },
  { path: '/connectors/:name', page: lazy(() => import('./pages/Connection')) },
  { path: '/functions/:name', page: lazy(() => import('./pages/Function')) },
];
