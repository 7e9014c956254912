"""The judge program: `python -I judge_program.py`. It says whether values fit schemas, one after the other, until its stdin ends.

    in    length of the schema, length of the value (4 bytes each, little-endian), the schema's JSON, the value's JSON
    out   length (4 bytes), the complaint in UTF-8; empty when the value fits, and once at the beginning

It holds no secret but what is in a value, may not use much memory, and is killed when it takes too long; should nobody be left to
do that, its timer does. That is all that is done about schemas that would do harm.
"""

from __future__ import annotations

import resource
import signal
import struct
import sys
from functools import lru_cache
from typing import BinaryIO

import jsonschema_rs
import msgspec

from rootlink.engine.functions.schemas import TOO_DEEP, complaint, validator_of

MAX_MEMORY = 1 << 30
MAX_CPU_SECS = 5.0  # for one value
ASKED, ANSWERED = struct.Struct("<II"), struct.Struct("<I")


@lru_cache(maxsize=64)
def _validator(schema: bytes) -> jsonschema_rs.Validator:
    return validator_of(msgspec.json.decode(schema))


def _words(schema: bytes, value: bytes) -> str:
    try:
        return complaint(_validator(schema), msgspec.json.decode(value))
    except (msgspec.DecodeError, RecursionError):
        return TOO_DEEP


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, answers = sys.stdin.buffer, sys.stdout.buffer
    _answer(answers, "")
    while len(header := source.read(ASKED.size)) == ASKED.size:
        schema, value = (source.read(length) for length in ASKED.unpack(header))
        signal.setitimer(signal.ITIMER_PROF, MAX_CPU_SECS)  # nothing handles its signal, so it ends the process
        words = _words(schema, value)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _answer(answers, words)


def _answer(answers: BinaryIO, words: str) -> None:
    encoded = words.encode("utf-8", "replace")
    answers.write(ANSWERED.pack(len(encoded)) + encoded)
    answers.flush()


if __name__ == "__main__":
    main()
