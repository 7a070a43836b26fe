"""A function of ours in a process of its own, beside this one: what it returns or raises comes back."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Generic, TypeVar, cast

from flipguard.errors import FlipGuardError

Result = TypeVar("Result")


class Worker(Generic[Result]):
    """A process that calls `function`, which must be importable, once; also where none could be started.

    Then, or where it fails in a way that is no error of ours, this process calls the function when it is asked for the
    result.
    """

    def __init__(self, function: Callable[..., Result], *arguments: object) -> None:
        self._function = function
        self._arguments = arguments
        self._process = _started(function, arguments)

    def result(self) -> Result:
        """What the function returns.

        Raises:
            FlipGuardError: the function raised it.
        """
        told = _received(self._process)
        if told is None:
            return self._function(*self._arguments)
        result, error = told
        if error is not None:
            raise error
        return cast(Result, result)

    def stop(self) -> None:
        """End the process, if it still runs."""
        if self._process is not None:
            self._process.kill()
            cast("IO[bytes]", self._process.stdout).close()
            self._process.wait()


def processors() -> int:
    """How many processors there are for this process."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def serve() -> None:
    """Call the function that comes in on the standard input: the whole life of a worker."""
    gc.disable()
    function, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
    told: tuple[object, FlipGuardError | None]
    try:
        told = function(*arguments), None
    except FlipGuardError as error:
        told = None, error
    sys.stdout.buffer.write(pickle.dumps(told, pickle.HIGHEST_PROTOCOL))
    sys.stdout.buffer.flush()
    os._exit(0)  # a million objects are not taken apart one by one


def _started(function: Callable[..., object], arguments: tuple[object, ...]) -> subprocess.Popen[bytes] | None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"]
    told = pickle.dumps((function, arguments), pickle.HIGHEST_PROTOCOL)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own code
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        with cast("IO[bytes]", process.stdin) as task:
            task.write(told)
    except OSError:
        return None
    return process


def _received(process: subprocess.Popen[bytes] | None) -> tuple[object, FlipGuardError | None] | None:
    """What a worker told; None where it failed."""
    if process is None:
        return None
    with cast("IO[bytes]", process.stdout) as told:
        content = told.read()
    return pickle.loads(content) if process.wait() == 0 else None  # noqa: S301 - from a process of our own
