"""What is printed of text that others wrote."""

from __future__ import annotations

import json

import pytest

from rootlink.cli import screen


@pytest.mark.parametrize("text", ["\x9b2J", "\x7f", "a\u202eb", "\U000e0041", "\x1b]0;t\x07", "é ☃ 😀\n\t\\u009b"])
def test_json_holds_nothing_that_a_terminal_might_obey_and_means_the_same(capsys: pytest.CaptureFixture[str], text: str) -> None:
    screen.emit({"text": text, text: 1})
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"text": text, text: 1}
    assert screen.clean(shown) == shown
