"""TypeScript to JavaScript: types become spaces, so every place stays where it was. Nothing else is translated.

Node's own `module.stripTypeScriptTypes` does it, in a child for each source: without environment or permissions, one at a
time, bounded in time, memory and output. The source is text to it and is never run.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import unicodedata
from typing import Final

import structlog

from rootlink.engine.functions.source import EXPORTED, HINT, Complaint, line_of
from rootlink.engine.packages.npm import bundled
from rootlink.errors import Unavailable

STRIP_SECS: Final = 10.0
MAX_OUTPUT: Final = 8 << 20
MAX_LOOKED_AT: Final = 64 << 10
_FLAGS: Final = (
    "--permission",
    "--no-warnings",
    "--max-old-space-size=128",
    "--wasm-max-mem-pages=8192",  # of 64 KiB
    "-e",
)
# Answers `+` and the code, or `-`, what is wrong and where.
_PROGRAM: Final = """
const { stripTypeScriptTypes } = require('node:module');
const chunks = [];
process.stdin.on('data', (chunk) => chunks.push(chunk)).on('end', () => {
  try {
    process.stdout.write('+' + stripTypeScriptTypes(Buffer.concat(chunks).toString()));
  } catch (error) {
    const broken = error.code === 'ERR_INTERNAL_ASSERTION'; // it was nested too deeply
    process.stdout.write('-' + (broken ? '' : error.message.slice(0, 300) + '\\0' + error.stack.slice(0, 4000)));
  }
});
"""
_NAMELESS = re.compile(r"(?>\s|/\*.*?\*/|//[^\n]*\n)*+(?:async\s+)?function\s*\*?\s*\(", re.DOTALL)
_EXPORT = "export default "
"""A function without a name is no statement; behind this it is one."""
_WHERE = re.compile(r"[^\n]*:(\d+)\n(?:(?:[^\n]*\n){1,9}?( *)\^+\n)?")
_TAB = 4
_INSTEAD = (
    (r"\benum\b", "an enum is more than types; write an object: const Color = { red: 'red' } as const"),
    (r"\bnamespace\b|`module` keyword", "a namespace is more than types; write plain functions, or an object"),
    (r"parameter property", "declare the field in the class and assign it in the constructor"),
    (r"import equals", "a function is one file and can't import; reach services with fetch or ctx.tools.call"),
    (r"export assignment", EXPORTED),
    (r"angle-bracket", "write: value as Type"),
)
_LOOKS = re.compile(
    r"^[ \t]*(?:export\s+)?(?:declare\s|abstract\s+class\s|interface\s+\w+|type\s+\w+[^=\n]{0,80}=)"
    r"|^[ \t]*(?:export\s+)?(?:enum\s+\w+|const\s+enum\s|namespace\s+\w+)"
    r"|^[ \t]*import\s+type\b"
    r"|[\w)\]?]\s?:\s*(?:string|number|boolean|any|unknown|void|never|object|Promise<|Record<|Array<|\w+\[\])"
    r"|\)\s*:\s*\w+(?:<[^\n]{0,80}>)?\s*(?:=>|\{)"
    r"|\b(?:as|satisfies)\s+(?:const|any|unknown|string|number|boolean|[A-Z]\w*)\b"
    r"|\b(?:private|public|protected|readonly)\s+\w",
    re.MULTILINE,
)

log = structlog.get_logger(__name__)


class Refused(Exception):
    def __init__(self, complaint: Complaint) -> None:
        super().__init__(complaint.message)
        self.complaint = complaint


def looks_like_it(code: str) -> bool:
    """Whether its author meant TypeScript, by what is common there and can't be JavaScript."""
    return _LOOKS.search(code, 0, MAX_LOOKED_AT) is not None


class TypeScript:
    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def strip(self, code: str) -> str:
        """`code` with spaces for types. Raises Refused, and Unavailable when Node can't be had."""
        before = _EXPORT if _NAMELESS.match(code) else ""
        async with self._turn:
            answer = await _ask(before + code)
        if answer is None:
            raise Refused(Complaint(f"reading it as TypeScript took longer than {STRIP_SECS:g} s, or too much memory"))
        if answer.startswith("+"):
            return answer[1 + len(before) :]
        raise Refused(_complaint(code, answer[1:], before))


async def _ask(code: str) -> str | None:
    """What the child answered; None: it ended without, or had to be ended."""
    try:
        process = await asyncio.create_subprocess_exec(
            str(bundled().binary),
            *_FLAGS,
            _PROGRAM,
            cwd="/",
            env={},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        log.error("node did not start", error=str(error))
        raise Unavailable("TypeScript can't be read now: Node did not start; the engine's log says why") from error
    try:
        async with asyncio.timeout(STRIP_SECS):
            answer = await _talk(process, code.encode())
            await process.wait()
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await asyncio.shield(process.wait())
    return answer.decode("utf-8", "replace") if process.returncode == 0 and answer else None


async def _talk(process: asyncio.subprocess.Process, said: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(ConnectionError):
        process.stdin.write(said)
        await process.stdin.drain()
        process.stdin.close()
    answer = bytearray()
    while part := await process.stdout.read(1 << 16):
        answer += part
        if len(answer) > MAX_OUTPUT:
            raise TimeoutError
    return bytes(answer)


def _complaint(code: str, text: str, before: str) -> Complaint:
    """What Node said, with its picture of the place: the line and, below, carets, in cells of a terminal."""
    if not text:
        return Complaint("it can't be read as TypeScript: it is nested too deeply")
    message, _, stack = text.partition("\0")
    message = " ".join(message.split("\n", 1)[0].replace("in strip-only mode", "here").split())
    hint = next((words for pattern, words in _INSTEAD if re.search(pattern, message)), HINT)
    message = f"SyntaxError: {message}"
    found = _WHERE.match(stack)
    if found is None:
        return Complaint(message, hint=hint)
    line = int(found[1])
    shown = line_of(code, line)
    if shown is None or "got '<eof>'" in message or "Unterminated" in message:
        return Complaint(message, code.count("\n") + 2, hint=hint)
    before = before if line == 1 else ""
    if found[2] is not None:
        return Complaint(message, line, _column(before + shown, len(found[2])) - len(before), hint)
    return Complaint(message, line, len(shown) - len(shown.lstrip()) + 1, hint)


def _column(line: str, cells: int) -> int:
    """Which column, in UTF-16 units from 1, is `cells` cells from the left."""
    column, passed = 1, 0
    for char in line:
        if passed >= cells:
            break
        if char == "\t":
            passed += _TAB - passed % _TAB
        elif not unicodedata.combining(char):
            passed += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        column += 1 + (ord(char) > 0xFFFF)
    return column
