"""Of what a program wrote before it ended, the lines that say why."""

from __future__ import annotations

import pytest

from rootlink.engine.mounts.words import telling

NODE = b"""Connecting to 1 database source(s)...
Failed to connect to PostgreSQL database: error: password authentication failed for user "ro"
    at /store/node_modules/pg-pool/index.js:45:11
    at async main (file:///store/node_modules/dbhub/dist/index.js:1915:5) {
  code: '28P01',
  routine: 'auth_failed'
}"""
UNCAUGHT = b"""node:internal/modules/cjs/loader:1520
  throw err;
  ^

Error: Cannot find module 'x'
    at Module._load (node:internal/modules/cjs/loader:1122:12) {
  code: 'MODULE_NOT_FOUND',
  requireStack: []
}

Node.js v24.19.0"""
PYTHON = b"""Traceback (most recent call last):
  File "server.py", line 1, in <module>
    main()
ValueError: no key"""


@pytest.mark.parametrize(
    ("written", "last"),
    [
        (NODE, b'Failed to connect to PostgreSQL database: error: password authentication failed for user "ro"'),
        (UNCAUGHT, b"Error: Cannot find module 'x'"),
        (PYTHON, b"ValueError: no key"),
        (b"one line", b"one line"),
        (b"  all of it\n  indented", b"  indented"),
        (b"}\n", b"}"),
    ],
)
def test_the_last_words_are_the_message_and_not_the_stack(written: bytes, last: bytes) -> None:
    assert telling(written.split(b"\n"))[-1] == last


def test_nothing_written_is_nothing_told() -> None:
    assert telling([b"", b"  "]) == []
