"""What runs in the worker processes and never in the engine's: V8, its limits, and the JavaScript around a function's body.

zygote.py    the program: V8 initialised, no isolate, no secret; forks a worker when asked
worker.py    one worker: isolates for one project, frames in and out, limits
v8.py        one isolate through mini-racer's C API
seccomp.py   after this a worker computes and talks on its one socket
prelude.py   the scripts a worker posts to its isolates
prelude.js   what a body sees of the outside: nothing but an outbox
apis/        one file a family of what a body may use (fetch, streams, url …), evaluated when it is first asked for
frames.py    the messages between engine and worker
wrapping.py  how a body's source stands in V8, and what of its first line is not the author's

The engine imports frames.py and wrapping.py of it, and nothing else.
"""
