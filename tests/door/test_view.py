"""What a command behind a door can see and is given: what it was granted, and nothing of the machine's or of others."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rootlink.door.command import Command
from rootlink.door.doors import _needed
from tests.door.kept import HERE, Kept, Refused, Way, each

SHOW = "import json, os, sys; print(json.dumps({}))"


def shown(kept: Kept, expression: str, *arguments: str, **what: object) -> object:
    return json.loads(kept.run(f"import glob, json, os, socket, sys; print(json.dumps({expression}))", *arguments, **what))


def test_the_environment_is_what_was_given_and_nobodys_else_can_be_read(kept: Kept) -> None:
    env = {"TOKEN": "s3cret", "HOME": "/tmp"}
    expression = "[dict(os.environ), open('/proc/1/environ').read(), open('/proc/self/environ').read(), os.listdir('/proc')]"
    own, first, mine, names = shown(kept, expression, env=env)  # type: ignore[misc]
    assert own == {**env, "PWD": "/tmp", "LC_CTYPE": "C.UTF-8"}  # the last is Python's own doing
    assert first == ""
    assert sorted(mine.split("\0")) == ["", "HOME=/tmp", "PWD=/tmp", "TOKEN=s3cret"]
    assert {int(name) for name in names if name.isdigit()} <= {1, 2, 3}  # one of them the keeper's, setting a limit


def test_a_command_s_environment_does_nothing_before_there_is_a_view(kept: Kept) -> None:
    trace = kept.folder / "trace"  # the dynamic linker writes it, where it can
    kept.run("", env={"LD_DEBUG": "libs", "LD_DEBUG_OUTPUT": str(trace)})
    assert [path.name for path in kept.folder.iterdir() if path.name.startswith("trace")] == []
    inside = kept.mine / "trace"
    kept.run("", env={"LD_DEBUG": "libs", "LD_DEBUG_OUTPUT": str(inside)}, write=[str(kept.mine)])
    assert len([path for path in kept.mine.iterdir() if path.name.startswith("trace")]) == 1  # the command's own, and no more


def test_an_environment_that_no_command_can_have_is_refused_in_words(kept: Kept) -> None:
    with pytest.raises(Refused, match="longer than the system allows"):
        kept.run("", env={"LONG": "x" * 131072})
    with pytest.raises(Refused, match="more than bubblewrap takes"):
        kept.run("", env={f"V{number}": "" for number in range(4000)})
    assert kept.run("import os; print(len(os.environ['LONG']))", env={"LONG": "x" * 120_000}) == "120000\n"
    assert int(kept.run("import os; print(len(os.environ))", env={f"V{number}": "x" for number in range(2500)})) >= 2500


def test_paths_of_the_machine_are_not_in_any_command_line(kept: Kept) -> None:
    lines = kept.spawn("cat", "/proc/1/cmdline", write=[str(kept.mine)]).text()
    assert str(kept.mine) not in lines and lines.split("\0")[-3:] == ["/usr/bin/cat", "/proc/1/cmdline", ""]


def test_nothing_is_inherited_but_standard_input_output_and_error(kept: Kept) -> None:
    listing = kept.spawn("ls", "/proc/self/fd").text().split()
    assert listing == ["0", "1", "2", "3"]  # 3 is the folder it reads
    # bubblewrap, which is process 1, is still closing what it set the door up with when the command begins
    first = kept.spawn("sh", "-c", "sleep 0.2; ls -l /proc/1/fd").text()
    assert first.count("->") <= 4, first  # its own event descriptor besides


def test_python_s_signals_are_not_inherited_as_ignored(kept: Kept) -> None:
    status = kept.spawn("cat", "/proc/self/status").text()
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    library = 1 << 31 | 1 << 32  # 32 and 33 are the C library's own: ignored, maybe, by who started us, and beyond Python
    assert int(lines["SigIgn"], 16) & ~library == 0
    assert int(lines["SigBlk"], 16) == 0
    assert {int(lines[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")


def test_limits_are_set(kept: Kept) -> None:
    soft = kept.spawn("sh", "-c", "ulimit -c; ulimit -n").text().split()
    assert soft[0] == "0"
    assert int(soft[1]) <= 65536


def test_the_machine_s_files_are_not_there(kept: Kept) -> None:
    secret = kept.folder / "secret"
    secret.write_text("not for you")
    top, etc, home, temp, see = shown(  # type: ignore[misc]
        kept, "[os.listdir(p) for p in ('/', '/etc', '/home', '/tmp')] + [os.path.exists(sys.argv[1])]", str(secret)
    )
    own = {sys.prefix.split("/")[1], sys.base_prefix.split("/")[1]}  # the interpreter that was asked for
    system = {
        "bin",
        "dev",
        "etc",
        "home",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "nix",
        "opt",
        "proc",
        "root",
        "run",
        "sbin",
        "tmp",
        "usr",
        "var",
    }
    assert set(top) <= system | own
    assert not {"shadow", "ssh", "sudoers", "machine-id", "hostname", "environment", "docker"} & set(etc)
    assert set(home) <= own
    assert set(temp) <= {path.split("/")[2] for path in (sys.prefix, sys.base_prefix) if path.startswith("/tmp/")}
    assert see is False


def test_private_keys_below_etc_ssl_are_not_there(kept: Kept) -> None:
    assert set(shown(kept, "os.listdir('/etc/ssl')")) <= {"certs", "openssl.cnf", "cert.pem"}  # type: ignore[call-overload]


def test_names_are_asked_of_the_door_and_accounts_are_made_up(kept: Kept) -> None:
    text = kept.spawn("sh", "-c", "cat /etc/resolv.conf /etc/hosts /etc/passwd; hostname; id -un; getent hosts localhost").text()
    assert "nameserver 127.0.0.1\n" in text
    assert f":x:{os.getuid()}:{os.getgid()}:" in text
    assert "127.0.0.1 localhost" in text
    assert "\ndoor\n" in text
    assert f"\n{'user' if os.getuid() else 'root'}\n" in text


def test_only_granted_folders_are_there_readable_or_writable_and_no_other_command_s(kept: Kept) -> None:
    one, two = kept.mine / "one", kept.mine / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    code = """
import os, sys
for path in sys.argv[1:]:
    try:
        print(open(path + "/file").read())
        open(path + "/new", "w").write("x")
        print("written")
    except OSError as error:
        print(type(error).__name__)
"""
    assert kept.run(code, str(one), str(two), write=[str(one)], cwd=str(one)) == "one\nwritten\nFileNotFoundError\n"
    assert kept.run(code, str(one), str(two), read=[str(two)]) == "FileNotFoundError\ntwo\nOSError\n"
    assert (one / "new").read_text() == "x"
    assert not (two / "new").exists()
    assert kept.run(code, str(one), write=[str(one)], read=[str(one)]) == "one\nwritten\n"


def test_a_readable_folder_within_a_writable_one_stays_readable_only(kept: Kept) -> None:
    (kept.mine / "inner").mkdir()
    code = """
import sys
for path in sys.argv[1:]:
    try:
        open(path, "w")
        print("written")
    except OSError as error:
        print(error.strerror)
"""
    text = kept.run(code, f"{kept.mine}/a", f"{kept.mine}/inner/b", write=[str(kept.mine)], read=[f"{kept.mine}/inner"])
    assert text == "written\nRead-only file system\n"


def test_the_system_proc_sys_and_dev_can_t_be_written(kept: Kept) -> None:
    code = """
system = "/usr/x /etc/x /x /dev/x /proc/sys/kernel/hostname /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger"
for path in system.split():
    try:
        open(path, "w").write("1")
        print("written", path)
    except OSError:
        pass
for path in ("/tmp/x", "/var/tmp/y", "/dev/shm/z", "/run/x", "/home/x", "/dev/null"):
    open(path, "w").write("x")
"""
    assert kept.run(code) == ""


def test_paths_outside_the_roots_are_refused_in_words_that_name_them(kept: Kept, tmp_path: Path) -> None:
    for what in ("read", "write"):
        with pytest.raises(Refused, match=r"/etc may not be .*--allow-path") as refused:
            kept.spawn("true", **{what: ["/etc"]})
        assert refused.value.code == "forbidden"
    with pytest.raises(Refused, match="may not be written to"):
        kept.spawn("true", write=[str(tmp_path / "store")])
    with pytest.raises(Refused, match=f"{kept.mine}/none can't be shown") as missing:
        kept.spawn("true", read=[f"{kept.mine}/none"])
    assert missing.value.code == "invalid"
    with pytest.raises(Refused, match="not an absolute path"):
        kept.spawn("true", read=["relative"])
    with pytest.raises(Refused, match="may not be"):
        kept.spawn("true", write=[f"{kept.mine}/../store"])
    with pytest.raises(Refused, match=r"working folder /srv/x .*`paths`"):
        kept.spawn("true", cwd="/srv/x")


def test_links_out_of_a_root_and_between_folders_that_children_write_are_not_followed(kept: Kept) -> None:
    one, two = kept.mine / "one", kept.mine / "two"
    one.mkdir()
    two.mkdir()
    (one / "out").symlink_to("/etc")
    (one / "other").symlink_to(two)
    for name in ("out", "other"):
        for what in ("read", "write"):
            with pytest.raises(Refused, match="it leads to"):
                kept.spawn("true", **{what: [f"{one}/{name}"]})


def test_a_root_that_the_engine_replaced_by_a_link_in_an_earlier_life_is_no_root(tmp_path: Path) -> None:
    state, secret = tmp_path / "state", tmp_path / "secret"
    (secret / "inner").mkdir(parents=True)
    state.mkdir()
    (state / "mounts").symlink_to(secret)
    roots = [str(state / "mounts")]
    for kept in each(tmp_path, write=[str(tmp_path / "link"), str(state)], write_roots=roots, read_roots=roots):
        for path in (state / "mounts", state / "mounts" / "inner", secret):
            for what in ("read", "write"):
                with pytest.raises(Refused, match="may not be"):
                    kept.spawn("true", **{what: [str(path)]})


def test_a_root_that_is_itself_a_link_of_the_operator_s_is_one_by_both_names(tmp_path: Path) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "named").symlink_to("real")
    for kept in each(tmp_path, write_roots=[str(tmp_path / "named")]):
        for name in ("real", "named"):
            path = f"{tmp_path}/{name}/inner"
            assert kept.spawn("pwd", cwd=path, write=[path]).text() == f"{path}\n"


def test_no_link_is_followed_in_the_store(tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    for kept in each(tmp_path, read_roots=[str(tmp_path / "allowed"), str(tmp_path / "store")]):
        (kept.store / "package").symlink_to(tmp_path / "allowed")
        (kept.store / "other").mkdir()
        (kept.store / "again").symlink_to("other")
        assert kept.spawn("true", read=[str(tmp_path / "allowed")]).text() == ""
        with pytest.raises(Refused, match="it leads to"):
            kept.spawn("true", read=[str(kept.store / "again")])


def test_a_link_that_flips_never_shows_what_is_outside(kept: Kept) -> None:
    """Refused or right, whichever the link was at the time."""
    good, path = kept.mine / "good", kept.mine / "flips"
    good.mkdir()
    (good / "file").write_text("good")
    path.mkdir()
    (path / "file").write_text("plain")
    stop = kept.folder / "stop"
    flip = f"""
import os
while not os.path.exists({str(stop)!r}):
    os.rename({str(path)!r}, {str(path)!r} + ".away")
    os.symlink("/etc", {str(path)!r})
    os.unlink({str(path)!r})
    os.rename({str(path)!r} + ".away", {str(path)!r})
"""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", flip]):
        try:
            outcomes = set()
            for _ in range(120):
                try:
                    way = kept.spawn("ls", str(path), read=[str(path)], errors=None)
                except Refused as refused:
                    outcomes.add(refused.code)
                    continue
                outcomes.add(way.text().splitlines()[-1])
        finally:
            stop.touch()
    assert not any("passwd" in outcome for outcome in outcomes)
    assert all(outcome in ("file", "invalid", "forbidden") or "bwrap" in outcome for outcome in outcomes), outcomes


def test_a_command_that_is_a_link_which_flips_shows_programs_alone(kept: Kept) -> None:
    secret, good, bad = kept.folder / "vault", kept.mine / "good", kept.mine / "bad"
    secret.mkdir()
    (secret / "seal.key").write_text("secret")
    good.symlink_to("/usr/bin/ls")
    bad.symlink_to(secret)
    flip = "import ctypes, sys\nlibc = ctypes.CDLL(None)\nwhile True: libc.renameat2(-100, sys.argv[1], -100, sys.argv[2], 2)"
    names = [str(path).encode() for path in (good, bad)]
    flipping = subprocess.Popen(
        [sys.executable, "-c", flip.replace("sys.argv[1]", repr(names[0])).replace("sys.argv[2]", repr(names[1]))]
    )
    ran = 0
    try:
        for _ in range(150):
            try:
                way = kept.spawn(str(good), "-R", str(secret))
            except Refused:
                continue
            assert "seal.key" not in way.text()
            kept.ended(way)
            ran += 1
    finally:
        flipping.kill()
        flipping.wait()
    assert ran


def test_what_is_no_program_is_not_shown_as_one(kept: Kept) -> None:
    folder, text, program = kept.folder / "folder", kept.folder / "text", kept.folder / "program"
    folder.mkdir()
    text.write_text("secret")
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    command = Command("/usr/bin/true", "/usr/bin")
    command.files |= {str(folder), str(text), str(program)}
    command.folders[str(text)] = str(text)
    command.folders["/proc/self/root" + str(folder)] = str(folder)
    shown_here, _ = _needed(command, [])
    for place in shown_here:
        os.close(place.fd)
    assert [place.at for place in shown_here] == [str(program)]


def test_a_path_below_proc_is_refused_wherever_it_leads(kept: Kept) -> None:
    with pytest.raises(Refused) as refused:
        kept.run("", read=[f"/proc/self/root{kept.mine}"])
    assert refused.value.code == "forbidden"


def test_the_store_is_readable_when_asked_for_and_writable_for_installers(kept: Kept) -> None:
    (kept.store / "package").mkdir()
    code = "import sys; open(sys.argv[1] + '/new', 'w')"
    kept.python(code, str(kept.store), read=[str(kept.store / "package")]).text()  # its own memory, if anything
    assert [path.name for path in kept.store.iterdir()] == ["package"]
    assert kept.ended(kept.python(code, str(kept.store / "package"), read=[str(kept.store / "package")])) == 1
    kept.run(code, str(kept.store), store=True)
    assert (kept.store / "new").exists()


def test_unix_sockets_of_the_host_are_out_of_reach(kept: Kept) -> None:
    name = f"\0door-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX) as path:
        abstract.bind(name)
        abstract.listen()
        path.bind(str(kept.folder / "host.sock"))
        path.listen()
        code = f"""
import socket
for name in ({name!r}, {str(kept.folder / "host.sock")!r}, {str(kept.link / "engine.sock")!r}):
    try:
        socket.socket(socket.AF_UNIX).connect(name)
        print("connected")
    except OSError as error:
        print(type(error).__name__)
"""
        assert kept.run(code).split() == ["ConnectionRefusedError", "FileNotFoundError", "FileNotFoundError"]


def test_host_processes_can_t_be_seen_or_signalled(kept: Kept) -> None:
    code = f"""
import os
print(os.path.exists("/proc/{os.getpid()}/status") and {os.getpid()} > 10)
try:
    os.kill({kept.pid}, 9)
except ProcessLookupError:
    print("nobody there")
"""
    assert kept.run(code).split("\n")[:2] == ["False", "nobody there"]


def test_chromium_s_policy_turns_off_what_would_go_around_the_gate_and_trusts_the_bundle(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("-----BEGIN CERTIFICATE-----\nQUJD\nREVG\n-----END CERTIFICATE-----\n" * 2)
    for kept in each(tmp_path, ca=str(bundle)):
        code = "import glob; [print(open(p).read()) for p in glob.glob('/etc/*/**/policies/managed/*', recursive=True)]"
        for policy in kept.run(code).splitlines():
            assert json.loads(policy) == {
                "EncryptedClientHelloEnabled": False,
                "QuicAllowed": False,
                "DnsOverHttpsMode": "off",
                "BuiltInDnsClientEnabled": False,
                "CACertificates": ["QUJDREVG"],
            }
        assert kept.run(f"print(open({str(bundle)!r}).read())").startswith("-----BEGIN")
        bundle.unlink()
        bundle.symlink_to("/etc/passwd")  # by an engine that was taken over
        assert "CACertificates" not in kept.run(code)


def test_the_engine_can_replace_the_bundle_and_children_see_the_new_one(tmp_path: Path) -> None:
    bundle, link = tmp_path / "link" / "bundle.pem", tmp_path / "link"
    link.mkdir()
    bundle.write_text("old")
    code = """
import os, socket, sys
folder = os.path.dirname(sys.argv[1])
open(folder + "/next", "w").write("new")
os.replace(folder + "/next", folder + "/bundle.pem")
sys.argv[1:] = [sys.argv[1], "0"]
exec(open(RELAY).read())
""".replace("RELAY", repr(str(HERE / "relay.py")))
    engine = [sys.executable, "-I", "-S", "-c", code, str(link / "engine.sock")]
    for kept in each(tmp_path, ca=str(bundle), engine=engine):
        assert kept.run(f"print(open({str(bundle)!r}).read())") == "new\n"


def test_a_venv_s_script_runs_though_nothing_of_it_was_granted(kept: Kept) -> None:
    script = Path(sys.prefix) / "bin" / "ruff"
    assert kept.spawn(str(script), "--version").text().startswith("ruff ")
    script = Path(sys.prefix) / "bin" / "pip"
    assert kept.spawn(str(script), "--version").text().startswith("pip ")


def test_a_script_s_interpreter_and_a_chain_of_links_are_made_visible(kept: Kept) -> None:
    tools = kept.folder / "tools"
    tools.mkdir()
    (tools / "say").write_text(f"#!{sys.executable}\nprint('said')\n")
    (tools / "say").chmod(0o755)
    (tools / "alias").symlink_to("say")
    (tools / "private").write_text("x")
    assert kept.spawn(str(tools / "alias")).text() == "said\n"
    assert kept.spawn(str(tools / "say")).text() == "said\n"
    (tools / "list").write_text('#!/bin/sh\nls "$(dirname "$0")"\n')
    (tools / "list").chmod(0o755)
    assert kept.spawn(str(tools / "list")).text() == "list\n"


def test_a_command_that_is_not_there_is_refused_in_words(kept: Kept) -> None:
    with pytest.raises(Refused, match="'no-such-tool' is not on this machine") as refused:
        kept.spawn("no-such-tool")
    assert refused.value.code == "invalid"
    with pytest.raises(Refused, match="can't be executed"):
        kept.spawn(str(HERE / "relay.py"))
    with pytest.raises(Refused, match="plain name or an absolute path"):
        kept.spawn("./tool")


def test_a_working_folder_below_a_grant_is_where_the_command_starts(kept: Kept) -> None:
    (kept.mine / "deep" / "er").mkdir(parents=True)
    way: Way = kept.spawn("pwd", cwd=f"{kept.mine}/deep/er", write=[f"{kept.mine}/deep"])
    assert way.text() == f"{kept.mine}/deep/er\n"
