"""A function of ours in a process of its own, beside this one: what it returns or raises comes back."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Generic, Protocol, TypeVar, cast

from flipguard.errors import FlipGuardError

Result = TypeVar("Result")
Task = tuple[Callable[..., object], tuple[object, ...]]
Told = tuple[object, FlipGuardError | None]
COMPUTES = "computes"  # how the names of threads begin that take no lock


class _Process(Protocol):
    stdout: IO[bytes] | None

    def kill(self) -> None: ...
    def wait(self) -> int: ...


class Worker(Generic[Result]):
    """A process that calls a function, which must be importable, once.

    Where no process can be started, or it fails in a way that is no error of ours, this process calls the function when
    it is asked for the result.
    """

    def __init__(self, function: Callable[..., Result], *arguments: object, copied: bool = False) -> None:
        """Where it must be a copy of this process that is asked, say `copied`."""
        self._task = function, arguments
        self._process: _Process | None = None
        with suppress(OSError):  # there may be too many processes
            if can_fork():
                self._process = _Forked(self._task)
            elif not copied:
                self._process = _spawned(self._task)
        self._end = weakref.finalize(self, _ended, self._process)

    def result(self) -> Result:
        """What the function returns.

        Raises:
            FlipGuardError: the function raised it.
        """
        told = _received(self._process)
        if told is None:
            function, arguments = self._task
            return function(*arguments)
        result, error = told
        if error is not None:
            raise error
        return cast(Result, result)

    def stop(self) -> None:
        """End the process, if it still runs."""
        self._end()


def processors() -> int:
    """How many processors there are for this process."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def copies() -> int:
    """How many copies of this process can work at once, itself among them.

    Fingerprints of texts are the same in copies alone.
    """
    return processors() if can_fork() else 1


def serve() -> None:
    """Call the function that comes in on the standard input: the whole life of a process that was not forked."""
    _answer(pickle.load(sys.stdin.buffer), sys.stdout.buffer)  # noqa: S301 - from the process that started this one


def _answer(task: Task, out: IO[bytes]) -> None:
    """Do the task, tell the result, and end: a million objects are not taken apart one by one."""
    gc.disable()
    function, arguments = task
    told: Told
    try:
        told = function(*arguments), None
    except FlipGuardError as error:
        told = None, error
    out.write(pickle.dumps(told, pickle.HIGHEST_PROTOCOL))
    out.flush()
    os._exit(0)


def can_fork() -> bool:
    """Whether a copy of this process would be whole: only this thread would be copied, so there must be no other one.

    Those that only compute hold nothing that the copy needs; the threads of numpy end before a copy is made.
    """
    others = [thread for thread in threading.enumerate() if not thread.name.startswith(COMPUTES)]
    return sys.platform == "linux" and len(others) == 1 and "torch" not in sys.modules


class _Forked:
    """A copy of this process that does a task: it is there at once, and knows all that this one knows."""

    def __init__(self, task: Task) -> None:
        source, target = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, of which `can_fork` knows
            self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(source)
                with os.fdopen(target, "wb") as out:
                    _answer(task, out)
            finally:
                os._exit(1)  # nothing of this process may run on in the copy
        os.close(target)
        self.stdout: IO[bytes] | None = os.fdopen(source, "rb")
        self._code: int | None = None

    def kill(self) -> None:
        if self._code is None:
            os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> int:
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._code


def _spawned(task: Task) -> subprocess.Popen[bytes]:
    """A process that is given the task as soon as it has started."""
    told = pickle.dumps(task, pickle.HIGHEST_PROTOCOL)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"]
    process = subprocess.Popen(  # noqa: S603 - our own code
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    threading.Thread(target=_write, args=(cast("IO[bytes]", process.stdin), told), daemon=True).start()
    return process


def _write(stdin: IO[bytes], told: bytes) -> None:
    with suppress(OSError), stdin:
        stdin.write(told)


def _received(process: _Process | None) -> Told | None:
    """What a worker told; None where it failed."""
    if process is None:
        return None
    with cast("IO[bytes]", process.stdout) as told:
        content = told.read()
    return pickle.loads(content) if process.wait() == 0 else None  # noqa: S301 - from a process of our own


def _ended(process: _Process | None) -> None:
    if process is not None:
        process.kill()
        process.wait()
        pipes = (process.stdin, process.stdout) if isinstance(process, subprocess.Popen) else (process.stdout,)
        for pipe in pipes:
            with suppress(OSError):
                cast("IO[bytes]", pipe).close()
