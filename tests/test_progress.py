from __future__ import annotations

import io
import sys

import pytest

from flipguard import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_short_work_says_nothing_where_there_is_no_terminal():
    stream = io.StringIO()
    with progress.follow("judge", 10, stream=stream) as advance:
        advance(10)
    assert stream.getvalue() == ""


def test_long_work_says_how_far_it_is_and_how_long_it_will_take(monkeypatch):
    clock = iter([0.0, 5.0, 12.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    with progress.follow("judge", 40, done=10, stream=stream) as advance:
        advance(5)
        advance(5)
    assert stream.getvalue() == "judge: 20 of 40 rows, 24 s left\n"


def test_a_terminal_gets_a_bar():
    stream = Terminal()
    with progress.follow("judge", 4, stream=stream) as advance:
        advance(4)
    assert "4/4" in stream.getvalue()


def test_a_terminal_without_tqdm_gets_lines(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    stream = Terminal()
    with progress.follow("judge", 4, stream=stream) as advance:
        advance(4)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("tty", [io.StringIO, Terminal])
def test_an_error_passes_through(tty):
    with pytest.raises(KeyError), progress.follow("judge", 4, stream=tty()):
        raise KeyError
