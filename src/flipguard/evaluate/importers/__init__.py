"""Ways to read what other tools wrote, one file each.

A format is a module with two functions; its name in FORMATS makes it known:

    recognise(source: Source) -> str | None        why this is not the format, None if it is
    read(source: Source, intake: Intake) -> Run | Judged

Formats are tried in the order of FORMATS, so the particular stand before the general. One of your own needs no entry:
`--format package.module:function` calls `function(source, intake)`.

Where a file holds several models, `FILE#MODEL` names one of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from flipguard.errors import DataError, FlipGuardError, choose, shown
from flipguard.evaluate.importers.hints import hint
from flipguard.evaluate.intake import Intake
from flipguard.evaluate.runs import Judged, Run
from flipguard.evaluate.sides import is_large, read_beside
from flipguard.evaluate.source import Source

WITH_QUESTIONS = ("mt_bench", "mt_bench_pairs")  # formats that `--questions` is for
FORMATS = (
    "judgments",
    "lm_eval",
    "inspect_ai",
    "alpaca_eval",
    "mt_bench",
    "mt_bench_pairs",
    "promptfoo",
    "openai_batch",
    "scores",
)


class Importer(Protocol):
    """What a module in this folder provides."""

    def recognise(self, source: Source) -> str | None:
        """Why `source` is not of this format, or None if it is."""

    def read(self, source: Source, intake: Intake) -> Run | Judged:
        """All rows of `source`."""


def read_runs(
    old: Path,
    new: Path | None,
    intake: Intake,
    format_name: str | None = None,
    told: Callable[[Run | Judged], None] = lambda _: None,
) -> list[tuple[str, Run | Judged]]:
    """Read what is compared: two runs, or one that holds both sides; each with the name of its format.

    Two parts of one file (`both.jsonl#a both.jsonl#b`) are one Judged where the file judges a against b.

    Args:
        old: the first file, or the only one.
        new: the second.
        intake: how rows are taken.
        format_name: the format, where it is not to be found by looking.
        told: is told of a run that is there while another is still being read.
    """
    if new is None:
        return [read(old, intake, format_name)]
    (path, part), (other, partner) = _split(old), _split(new)
    if part is None or partner is None or not _same(path, other):
        runs = _read_both((path, part), (other, partner), intake, format_name, told)
    else:
        runs = [_read(Source.of(path, part=part, partner=partner), intake, format_name)]
        if isinstance(runs[0][1], Run):
            runs.append(_read(Source.of(path, part=partner, partner=part), intake, format_name))
    _agree_on_the_scale([run for _, run in runs])
    return runs


def read(path: Path, intake: Intake, format_name: str | None = None) -> tuple[str, Run | Judged]:
    """Read `path` in the format named, or in the first that recognises it; return the format's name and the rows."""
    file, part = _split(path)
    return _read(Source.of(file, part=part), intake, format_name)


def check_name(name: str) -> None:
    """Raise a DataError if no format has this name."""
    if ":" not in name and name not in FORMATS:
        raise DataError(f"--format: unknown format '{name}'. {choose(name, FORMATS)}")


def _split(path: Path) -> tuple[Path, str | None]:
    """`both.jsonl#a` as the file and the part, unless there is a file of that very name."""
    text = str(path)
    if "#" in text and not path.exists():
        at = -1
        while (at := text.find("#", at + 1)) >= 0:
            if at and text[at + 1 :] and Path(text[:at]).exists():
                return Path(text[:at]), text[at + 1 :]
    return path, None


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _read_both(
    old: tuple[Path, str | None],
    new: tuple[Path, str | None],
    intake: Intake,
    format_name: str | None,
    told: Callable[[Run | Judged], None],
) -> list[tuple[str, Run | Judged]]:
    """Two files, at the same time where that pays."""
    sources = (Source.of(file, part=part, alone=False) for file, part in (old, new))
    first = next(sources)
    if intake.processes < 2 or not _stays_in_its_file(first, format_name):
        return [_read(source, intake, format_name) for source in (first, *sources)]
    second = next(sources)
    if not _stays_in_its_file(second, format_name):
        return [_read(source, intake, format_name) for source in (first, second)]
    one, other = (partial(_read, source, format_name=format_name) for source in (first, second))
    return read_beside(one, other, intake, told)


def _stays_in_its_file(source: Source, format_name: str | None) -> bool:
    """Whether this is a large file of which no text is kept, so that what is read of it travels easily."""
    return source.kind == "lines" and is_large(source.path) and (format_name or _recognise(source)) == "scores"


def _read(source: Source, intake: Intake, format_name: str | None) -> tuple[str, Run | Judged]:
    try:
        return _read_as_it_is(source, intake, format_name)
    except DataError as error:  # names from the file stand in it
        raise DataError("".join(mark if mark.isprintable() else shown(mark)[1:-1] for mark in str(error))) from None
    except RecursionError:
        raise DataError(f"{source.path}: a value in it nests hundreds of levels deep. Flatten it.") from None


def _read_as_it_is(source: Source, intake: Intake, format_name: str | None) -> tuple[str, Run | Judged]:
    name = _recognise(source) if format_name is None else format_name
    if intake.questions is not None and name not in WITH_QUESTIONS and ":" not in name:
        raise DataError(f"--questions: belongs to {' and '.join(WITH_QUESTIONS)}, but {source.path} is {name}.")
    if source.kind == "array" and not source.rows and ":" not in name:
        raise DataError(f"{source.path}: holds no rows of the format {name}: {source.why_no_rows()}.")
    run = _foreign(name, source, intake) if ":" in name else _importer(name).read(source, intake)
    if isinstance(run, Run) and not run.entries:
        raise DataError(f"{source.path}: holds no usable row in the format {name}. Check the file.")
    if source.part not in (None, run.old if isinstance(run, Judged) else run.name):
        raise DataError(f"{source.path}: the format {name} knows no part {shown(source.part)}. Leave '#' and it away.")
    return name, run


def _agree_on_the_scale(runs: list[Run | Judged]) -> None:
    """A grade that is 0 or 1 in one file by chance and a number in the other is a number in both."""
    named = [grade for run in runs for grade in run.graded.values()]
    if named and {run.metric for run in runs} == {"correct", "score"}:
        for run in runs:
            run.metric = "score"


def _recognise(source: Source) -> str:
    refusals: dict[str, list[str]] = {}
    for name in FORMATS:
        why_not = _importer(name).recognise(source)
        if why_not is None:
            return name
        refusals.setdefault(why_not, []).append(name)
    tried = "; ".join(f"{', '.join(names)} ({why_not})" for why_not, names in refusals.items())
    names = f"--format names one: {', '.join(FORMATS)}."
    raise DataError(f"{source.path}: no known format.{hint(source)} Tried {tried}. {names}")


def _importer(name: str) -> Importer:
    check_name(name)
    return cast(Importer, importlib.import_module(f"{__name__}.{name}"))


def _foreign(name: str, source: Source, intake: Intake) -> Run | Judged:
    module, _, function = name.partition(":")
    try:
        reader = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise DataError(f"--format {name}: cannot be loaded ({error}). Write package.module:function.") from None
    try:
        run = reader(source, intake)
    except FlipGuardError:
        raise
    except Exception as error:
        raise DataError(f"--format {name}: failed on {source.path}: {type(error).__name__}: {error}.") from error
    if not isinstance(run, Run | Judged):
        raise DataError(f"--format {name}: returned {type(run).__name__}, expected a Run or Judged.")
    return run
