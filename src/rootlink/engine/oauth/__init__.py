"""Servers that a person signs in to: discovery, sign-in, tokens (RFC 6749, 7523, 7636, 7591, 8414, 8707, 9207, 9449, 9728).

    accounts.py       who is signed in where; sign-ins under way; what is handed over to the vault
    account.py        one server's grant: a token for each request, refreshed in the background, by one however many wait
    discovery.py      which authorization server, by what the server says when it refuses
    registration.py   as which client
    flow.py           one sign-in: the link, and whether what came back is its answer
    tokens.py         a code, a refresh token or what a client has by itself into tokens
    keys.py           what is signed by a key of ours: who a client is, and that a token is ours (private_key_jwt, DPoP)
    grant.py          what a sign-in came to: the value of the vault's secret
    places.py         which URLs may be asked and shown; requests through the connection's own way out

Rules
- Every request goes out by the connection's `Scope`: what a stranger names is reached under the project's allowlist or not at
  all.
- Credentials belong to an issuer: a client or token of one authorization server is never shown to another.
- A grant is sealed and written down before it is used; in plaintext it is in memory alone.
- No word, log or error holds a token, code, verifier, key or client secret; the redactor knows each from the moment it is here.
"""
