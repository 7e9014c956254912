"""`python -m rootlink` and the `rootlink` script: the command line (`rootlink.cli.app`), nothing else."""

from __future__ import annotations

import sys

from rootlink.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
