from __future__ import annotations

import pytest

from tests.cli.conftest import Run


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("schedule", "f", "--off", "--cron", "@daily"), "--off goes with no other option"),
        (("schedule", "f", "--timezone", "UTC"), "--timezone and --input go with --cron"),
        # a script whose variable is empty must not be told that all went well
        (("schedule", "f", "--timezone", ""), "--timezone and --input go with --cron"),
        (("schedule", "f", "--input", ""), "--timezone and --input go with --cron"),
        (("schedule", "f", "--off", "--cron", ""), "--off goes with no other option"),
        (("schedule", "f", "--cron", "@daily", "--input", ""), "--input is not JSON"),
        (("schedule", "f", "--cron", "@daily", "--input", "{"), "--input is not JSON"),
        (("webhook", "f", "--off", "--rotate"), "not both"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_asked(
    run: Run, argv: tuple[str, ...], words: str
) -> None:
    outcome = run("function", *argv)
    assert outcome.code == 2 and words in outcome.err


def test_triggers_are_commands_of_the_functions_group(run: Run) -> None:
    shown = run("function", "--help").out
    assert all(f"\n  {name} " in shown for name in ("deploy", "schedule", "webhook"))
