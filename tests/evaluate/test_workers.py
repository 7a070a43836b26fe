"""A function in another process: its result, its error, and no worse off where it dies."""

import gc
import os
import subprocess
import sys

import pytest

from flipguard.errors import DataError, shown
from flipguard.evaluate import workers
from flipguard.evaluate.workers import Worker
from flipguard.files import is_plain, open_binary


@pytest.fixture(params=["forked", "spawned"], autouse=True)
def kind(request, monkeypatch):
    monkeypatch.setattr(workers, "can_fork", lambda: request.param == "forked" and sys.platform == "linux")
    return request.param


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
    worker = Worker(shown, "x")
    process = worker._process
    del worker
    gc.collect()
    assert process.wait() in (0, -9)


def test_a_process_is_copied_only_where_no_other_thread_runs(monkeypatch):
    monkeypatch.undo()
    if sys.platform != "linux":
        pytest.skip("processes are copied on Linux alone")
    code = (
        "import threading; from flipguard.evaluate import workers; print(workers.can_fork(), end=' ');"
        "done = threading.Event();"
        "start = lambda name: threading.Thread(target=done.wait, name=name, daemon=True).start();"
        "start(workers.COMPUTES); print(workers.can_fork(), end=' '); start('other'); print(workers.can_fork())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["True", "True", "False"]


def test_where_it_must_be_a_copy_and_can_be_none_the_work_is_done_here(monkeypatch):
    monkeypatch.setattr(workers, "can_fork", lambda: False)
    assert Worker(os.getpid, copied=True).result() == os.getpid()


def test_a_copy_gives_texts_the_same_fingerprints(kind):
    if kind == "forked" and sys.platform == "linux":
        assert Worker(hash, "text", copied=True).result() == hash("text")


def test_where_no_process_can_be_started_the_work_is_done_here(monkeypatch):
    monkeypatch.setattr(workers.sys, "executable", "/nowhere/python")
    assert Worker(shown, "x").result() == shown("x")
