"""`python -m rootlink.programs NAME --setting value…`: how programs start each other. People use `rootlink NAME`.

Besides settings there are three things only another program says: `--parent PID` (end when it ends), `--listen FD` (a socket that
is bound already) and `--ready FD` (where `up` tells how its start went).
"""

from __future__ import annotations

import gc
import socket
import sys
from importlib import import_module

from rootlink.errors import Invalid, RootlinkError
from rootlink.programs import prctl, settings

PROGRAMS = ("gateway", "provisioner", "gate", "engine", "up")
INHERITED = ("--parent", "--listen", "--ready")


def main(argv: list[str]) -> int:
    name, rest = (argv[0], argv[1:]) if argv else ("", [])
    try:
        if name not in PROGRAMS:
            raise Invalid(f"there is no program {name!r}; there are {', '.join(PROGRAMS)}")
        inherited = {rest[at]: int(rest[at + 1]) for at in range(0, len(rest) - 1, 2) if rest[at] in INHERITED}
        given = [word for at in range(0, len(rest), 2) if rest[at] not in INHERITED for word in rest[at : at + 2]]
        if "--parent" in inherited:
            prctl.die_with_parent(inherited["--parent"])
        return _run(name, settings.from_argv(given), inherited)
    except RootlinkError as error:
        print(f"rootlink {name}: {error.code}: {error.message}", file=sys.stderr)
        return 1


def _run(name: str, given: settings.Settings, inherited: dict[str, int]) -> int:
    gc.disable()  # nothing that is imported is garbage: looking for some costs a tenth of the start
    program = import_module(f"rootlink.programs.{name}")  # one program's imports are not paid for by another
    gc.freeze()
    gc.enable()
    if name == "gateway" and "--listen" in inherited:
        return int(program.main(given, socket.socket(fileno=inherited["--listen"])))
    if name == "up":
        return int(program.supervise(given, inherited["--ready"]))
    return int(program.main(given))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
