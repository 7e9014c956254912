"""What a control's pytest is started with."""

from __future__ import annotations

import os


def inherited() -> dict[str, str]:
    """This process's environment, without what pytest says of itself in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # noqa: TID251
