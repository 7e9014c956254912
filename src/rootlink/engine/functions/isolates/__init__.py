"""What runs in the worker processes and never in the engine's: V8, its limits, and the JavaScript around a function's body.

zygote.py    the program: V8 initialised, no isolate, no secret; forks a worker when asked
worker.py    one worker: isolates for one project, frames in and out, limits
v8.py        one isolate through mini-racer's C API
seccomp.py   after this a worker computes and talks on its one socket
prelude.js   what a body sees of the outside: nothing but an outbox; apis/ is loaded at first use
frames.py    the messages between engine and worker; the only file both sides import
"""
