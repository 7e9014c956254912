"""How a request arrives and how its answer leaves, per generation of MCP. What it means is `engine/dispatch.py`.

session.py     2025-11-25, 2025-06-18, 2025-03-26: initialize, Mcp-Session-Id, a GET stream
stateless.py   2026-07-28: every request carries its envelope; `subscriptions/listen`
sse.py         2024-11-05: one GET stream with an `endpoint` event, messages posted beside it
endpoint.py    which of them a request belongs to
stream.py      server-sent events to one client, with backpressure
frames.py      JSON-RPC in and out
"""
