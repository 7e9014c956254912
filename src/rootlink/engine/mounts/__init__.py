"""The MCP servers an engine holds: one persistent link each, supervised and owned by the engine, and links of clients' own where
a server keeps something for each.

supervisor.py   Mounts: what is mounted, per workspace          mount.py       one mount's life, and every question to it
spec.py         what a spec may say; `${NAME}` filled in        restarts.py    when to try again (a table)
listing.py      a server's lists read whole, within caps        era.py         the handshake of either era
link.py         what a mount asks of a transport                opening.py     opened and greeted in time, or closed again
shared.py       what clients hold together on a mount's link    clients.py     what a server holds for each client alone
watched.py      who hears of which resource; listen             pool.py        links of clients' own: whose, how many, how long
exchange.py     who waits for which answer (no I/O)             questions.py   what a server asks its client
patience.py     a call's deadline
stdio.py  http.py  sse.py                                       the three transports
launch.py  warden.py                                            how a child's process tree is started and ended, in each tier
refusals.py                                                     what the gate refused a mount, joined to what fails for it
lines.py  events.py  flood.py  clock.py                         bytes → lines, bytes → SSE events, budget, time
"""
