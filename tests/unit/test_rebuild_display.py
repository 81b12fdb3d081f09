"""What a rebuild tells where there is no terminal; on one, tests/integration/test_rebuild.py looks at it."""

import re

import pytest

from projection_service.rebuild import display as display_module
from projection_service.rebuild.display import display
from shared.events import Position


def test_a_log_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with display() as report:
        report.moved(Position(0), Position(10_000))
        report.moved(Position(5_000), Position(10_000))
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(display_module, "LINE_SECONDS", 0)
        report.moved(Position(7_000), Position(12_000))
        (line,) = capsys.readouterr().err.splitlines()
        assert re.fullmatch(r"at position 7,000 of 12,000, [1-9][\d,]* events/s, \d:\d\d:\d\d to go", line)


def test_a_sentence_is_told_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """An account may be called like a colour."""
    sentence = "'[red]alice[/red]': " + "balance 7 is now 8, " * 20
    with display() as report:
        report.say(sentence)
    assert capsys.readouterr().err == f"{sentence}\n"
