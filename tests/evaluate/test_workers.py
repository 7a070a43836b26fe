"""A function in another process: its result, its error, and no worse off where it dies."""

import os

import pytest

from flipguard.errors import DataError, shown
from flipguard.evaluate.workers import Worker
from flipguard.files import is_plain, open_binary


def test_the_result_comes_back():
    worker = Worker(shown, "x" * 100_000, 200_000)
    assert worker.result() == shown("x" * 100_000, 200_000)


def test_an_error_of_ours_comes_back(tmp_path):
    with pytest.raises(DataError, match=r"is a folder"):
        Worker(open_binary, tmp_path).result()


def dies_elsewhere(pid):
    if os.getpid() != pid:
        os._exit(1)
    return "here"


def test_what_fails_there_is_done_here():
    assert Worker(dies_elsewhere, os.getpid()).result() == "here"


def test_any_other_error_is_raised_here_with_its_own_traceback(tmp_path):
    with pytest.raises(FileNotFoundError):
        Worker(is_plain, tmp_path / "none").result()


def test_a_worker_that_is_stopped_leaves_no_process():
    worker = Worker(shown, "x")
    worker.stop()
    worker.stop()
