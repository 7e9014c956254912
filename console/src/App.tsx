import { Center, Loader } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { lazy, Suspense } from 'react';
import { Redirect, Route, Router, Switch, useParams } from 'wouter';
import { api, Refused, told } from './api/client';
import { Frame } from './Frame';
import { BELOW, PLACES } from './pages';
import { Empty, Problem } from './parts';
import { SignIn } from './pages/SignIn';
import { ProjectContext, type Role, useSession } from './session';

const Account = lazy(() => import('./pages/Account'));
const waiting = <Center p="xl"><Loader size="sm" aria-label="Loading" /></Center>;

/** Who is nobody signs in; everybody else is at a page of a project, or at their own account. */
export function App() {
  const session = useSession();
  if (session.error instanceof Refused && session.error.status === 401) return <SignIn />;
  if (session.error !== null && session.data === undefined) return <Problem error={session.error} again={() => void session.refetch()} />;
  if (session.data === undefined) return waiting;
  return (
    <Router base="/console">
      <Switch>
        <Route path="/p/:project" nest><InProject /></Route>
        <Route path="/account"><Frame><Suspense fallback={waiting}><Account /></Suspense></Frame></Route>
        <Route><First /></Route>
      </Switch>
    </Router>
  );
}

const useProjects = () => useQuery({ queryKey: ['projects'], queryFn: () => told(api.GET('/v1/projects', {})) });

/** From `/` to the project that was open last, or the first there is. */
function First() {
  const projects = useProjects();
  if (projects.error !== null) return <Problem error={projects.error} again={() => void projects.refetch()} />;
  if (projects.data === undefined) return waiting;
  const last = localStorage.getItem('rootlink.project');
  const project = projects.data.find((one) => one.name === last) ?? projects.data[0];
  if (project === undefined) return <Frame><Empty title="No project yet">An owner of one can add you to it.</Empty></Frame>;
  return <Redirect to={`/p/${encodeURIComponent(project.name)}/connectors`} />;
}

function InProject() {
  const { project: name } = useParams<{ project: string }>();
  const projects = useProjects();
  if (projects.error !== null && projects.data === undefined) return <Problem error={projects.error} again={() => void projects.refetch()} />;
  if (projects.data === undefined) return waiting;
  const found = projects.data.find((one) => one.name === decodeURIComponent(name) || one.id === name);
  if (found === undefined) {
    return <Frame><Empty title="There is no such project" command="rootlink status">It was deleted, or you are not a member of it.</Empty></Frame>;
  }
  localStorage.setItem('rootlink.project', found.name);
  const role = ((found as { role?: Role }).role ?? 'owner') as Role;
  return (
    <ProjectContext.Provider value={{ id: found.id, name: found.name, role }}>
      <Frame>
        <Suspense fallback={waiting}>
          <Switch>
            {[...BELOW, ...PLACES].map(({ path, page: Page }) => <Route key={path} path={path}><Page /></Route>)}
            <Route><Redirect to="/connectors" /></Route>
          </Switch>
        </Suspense>
      </Frame>
    </ProjectContext.Provider>
  );
}
