"""What a mount is started from: `npx X` and `uvx X` become one pinned, integrity-checked install and a direct start.

`asks.py` reads the command line people paste; `locks.py` says which locks are trusted; `shelf.py` is the store's folders and
their laws; `installer.py` runs npm and uv, `kept.py` does so behind a door; `npm.py` and `pypi.py` know one registry each;
`store.py` is the front door.
"""

from rootlink.engine.packages.starts import Start
from rootlink.engine.packages.store import Packages

__all__ = ["Packages", "Start"]
