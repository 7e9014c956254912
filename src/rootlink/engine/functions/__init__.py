"""Root Functions: JavaScript bodies deployed in a workspace, run in V8 isolates outside this process.

host.py         FunctionHost, what the rest of the engine sees: deploy, invoke, list, runs, remove
definition.py   what may be deployed, and what became of it: Function, its tool, its schemas
schemas.py      which JSON Schemas may be deployed, and how much work each can be
judging.py      whether values fit them, without holding up the engine; judge.py is the process for what may take long
compiling.py    from a spec to a function that can run
source.py       a body as one expression: what may trail it, and where it does not compile
run.py          one run, as it is answered and kept
ledger.py       functions, versions and runs in the engine's SQLite file
environment.py  which secrets a body gets
pool.py         workers: the one in use, the spare, who replaces whom
processes.py    the zygote's and a worker's process, and the frames to it
call.py         one call in flight: events in, answers out, one outcome
tools.py        `ctx.tools` of a run: what it may call, how often; the port to the engine's tools
operations.py   what the host does for a body: fetch, timers, digests
isolates/       everything on the other side of the socket; V8 lives there alone
"""
