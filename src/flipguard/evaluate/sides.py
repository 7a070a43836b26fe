"""Both files of a comparison read at the same time where they are large, with the result of one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flipguard.errors import FlipGuardError
from flipguard.evaluate.intake import BadLines, Intake
from flipguard.evaluate.runs import Judged, Run
from flipguard.evaluate.workers import Worker
from flipguard.files import is_plain

LARGE = 1 << 25  # bytes; of a smaller file, reading it elsewhere and sending the run saves next to nothing

Named = tuple[str, Run | Judged]  # with the name of its format
Reader = Callable[[Intake], Named]


@dataclass(frozen=True, slots=True)
class _Side:
    """What another process has read: the bad lines it met, then the run or what ended the reading."""

    bad: list[str]
    run: Named | None
    error: FlipGuardError | None


def read_beside(old: Reader, new: Reader, intake: Intake, told: Callable[[Run | Judged], None]) -> list[Named]:
    """Read the new side in a process of its own, with half of all that may be had.

    Args:
        old: reads the run of the model before, in this process.
        new: reads the run of the model after in the other process, from where the run is sent here.
        intake: how rows are taken; bad lines are counted over both sides, those of the old one first.
        told: is told of the old run, which is mostly there first.
    """
    share = intake.processes // 2
    apart = replace(intake, bad=BadLines(intake.bad.limit), processes=share)
    worker = Worker(_read_side, new, apart, copied=True)
    try:
        first = old(replace(intake, processes=intake.processes - share))
        told(first[1])
        side = worker.result()
    finally:
        worker.stop()
    for message in side.bad:
        intake.bad.meet(message)
    if side.run is None:
        raise side.error or RuntimeError("a side is neither read nor refused")
    return [first, side.run]


def is_large(path: Path) -> bool:
    """Whether `path` is a plain file so large that a process of its own pays."""
    return path.is_file() and path.stat().st_size >= LARGE and is_plain(path)


def _read_side(read: Reader, intake: Intake) -> _Side:
    try:
        return _Side(intake.bad.told, read(intake), None)
    except FlipGuardError as error:
        return _Side(intake.bad.told, None, error)
