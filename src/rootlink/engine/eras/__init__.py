"""How a request arrives and how its answer leaves, per generation of MCP. What it means is `engine/dispatch.py`.

endpoint.py    which era a request belongs to, and its HTTP; 2024-11-05's two endpoints
session.py     2025-11-25, 2025-06-18, 2025-03-26: initialize, Mcp-Session-Id, a GET stream; 2024-11-05's sessions
tape.py        what a session client was sent, numbered, for Last-Event-ID
questions.py   what a session client is asked
stateless.py   2026-07-28: every request carries its envelope
listening.py   `subscriptions/listen`
parked.py      a stateless client's call that waits for an answer from it
running.py     a request while it runs, as servers see it
stream.py      server-sent events to one client, with backpressure
frames.py      JSON-RPC in and out
"""
