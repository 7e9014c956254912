"""The MCP servers an engine holds: one persistent link each, supervised, owned by the engine and by no client's session.

supervisor.py   Mounts: what is mounted, per workspace          mount.py       one mount's life, and every question to it
spec.py         what a spec may say; `${NAME}` filled in        restarts.py    when to try again (a table)
listing.py      a server's lists read whole, within caps        era.py         the handshake of either era
link.py         what a mount asks of a transport                exchange.py    who waits for which answer (no I/O)
stdio.py  http.py  sse.py                                       the three transports
launch.py  warden.py                                            how a child's process tree is started and ended, in each tier
refusals.py                                                     what the gate refused a mount, joined to what fails for it
lines.py  events.py  flood.py  clock.py                         bytes → lines, bytes → SSE events, budget, time
"""
