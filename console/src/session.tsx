import { useQuery } from '@tanstack/react-query';
import { createContext, useContext } from 'react';
import { api, type Shapes, told } from './api/client';

export type Role = 'viewer' | 'editor' | 'owner';
export type Session = Shapes['SessionView'];

export interface Project {
  id: string;
  name: string;
  role: Role;
}

const ORDER: readonly Role[] = ['viewer', 'editor', 'owner'];

export const useSession = () => useQuery({ queryKey: ['session'], queryFn: () => told(api.GET('/v1/session', {})) });

export const ProjectContext = createContext<Project | null>(null);

/** The project this page is about. `p` is how paths name it; `can(role)`: whether who is signed in may do what takes that role. */
export function useProject() {
  const project = useContext(ProjectContext);
  if (project === null) throw new Error('outside a project');
  return { ...project, p: project.name, can: (role: Role) => ORDER.indexOf(project.role) >= ORDER.indexOf(role) };
}
