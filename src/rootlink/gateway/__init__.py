"""The gateway: who is asking, the routes of `/v1`, sealing on the way in, and the relay of MCP and REST to the engines.

It holds the public sealing key and hashes of keys; never a private key, and never a plaintext once it is sealed.

    guard, protocol     what a request must look like             auth, ratelimit    who may ask, how often
    relay               /mcp and /engine, to an engine            engines, link      where engines are; HTTP over their sockets
    routes, v1/         /v1 as data, one noun a file              connect            the saga of a connect
    app, server         all of it as one ASGI app, and served     provisioner        the requests to the provisioner
    protected           what OAuth clients are told               eventids           how far an event stream has come
"""
