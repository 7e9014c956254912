"""Root Functions: JavaScript bodies deployed in a workspace, run in V8 isolates outside this process.

host.py         FunctionHost, what the rest of the engine sees: deploy, roll back, invoke, list, runs, remove

What is deployed
definition.py   what a spec may say; a deployed function, its tool
compiling.py    from a spec to a function that can run: the readings of its source, one after the other, V8 being the judge
source.py       a body's text: its readings as one expression, places in it, how a complaint about it reads
modules.py      the reading as a module: `export default` and other exports taken out
typescript.py   the reading as TypeScript: types made spaces, by Node
schemas.py      which JSON Schemas may be deployed, and how much work each can be
ledger.py       functions, versions and runs in the engine's SQLite file

A run
run.py          one run, as it is answered and kept
turns.py        how many runs of one function there may be at once
environment.py  which secrets a body gets
judge.py        whether input and output fit their schemas; judge_program.py is the process for what may take long
pool.py         workers: the one in use, the spare, who replaces whom
processes.py    the zygote's and a worker's process, and the frames to it
call.py         one call in flight: events in, answers out, one outcome
results.py      what a body returned, read in a bounded time
cleaning.py     a run without secrets, as it is answered and as it is kept
hints.py        what a person can do about its error

What a body asks the host for
operations.py   one call's operations: numbered, limited, answered once; timers
exchange.py     fetch: a request, and its answer as it is read
refusals.py     which hosts a run was refused
subtle.py       crypto.subtle
tools.py        `ctx.tools`: what a run may call, how often; the port to the engine's tools
room.py         what all runs of an engine may have under way together

What starts a function by itself
triggers.py     the schedule and the webhook URL of each function, in the engine's SQLite file
schedule.py     when a cron expression is due
scheduler.py    runs what is due, and what a webhook brings

isolates/       everything on the other side of the socket; V8 lives there alone
"""
