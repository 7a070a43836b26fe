"""Ways to read what other tools wrote, one file each.

A format is a module with two functions; its name in FORMATS makes it known:

    recognise(source: Source) -> str | None        why this is not the format, None if it is
    read(source: Source, intake: Intake) -> Run | Judged

Formats are tried in the order of FORMATS, so the particular stand before the general. One of your own needs no entry:
`--format package.module:function` calls `function(source, intake)`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol, cast

from flipguard.errors import DataError, choose
from flipguard.evaluate.intake import Intake, Source
from flipguard.evaluate.runs import Judged, Run

FORMATS = ("judgments", "scores")


class Importer(Protocol):
    """What a module in this folder provides."""

    def recognise(self, source: Source) -> str | None:
        """Why `source` is not of this format, or None if it is."""

    def read(self, source: Source, intake: Intake) -> Run | Judged:
        """All rows of `source`."""


def read(path: Path, intake: Intake, format_name: str | None = None) -> tuple[str, Run | Judged]:
    """Read `path` in the format named, or in the first that recognises it; return the format's name and the rows."""
    source = Source.of(path)
    name = _recognise(source) if format_name is None else format_name
    run = _foreign(name, source, intake) if ":" in name else _importer(name).read(source, intake)
    if isinstance(run, Run) and not run.entries:
        raise DataError(f"{path}: holds no usable row in the format {name}. Check the file.")
    return name, run


def check_name(name: str) -> None:
    """Raise a DataError if no format has this name."""
    if ":" not in name and name not in FORMATS:
        raise DataError(f"--format: unknown format '{name}'. {choose(name, FORMATS)}")


def _recognise(source: Source) -> str:
    refusals = []
    for name in FORMATS:
        why_not = _importer(name).recognise(source)
        if why_not is None:
            return name
        refusals.append(f"{name} ({why_not})")
    raise DataError(
        f"{source.path}: no known format. Tried {', '.join(refusals)}. --format names one: {', '.join(FORMATS)}."
    )


def _importer(name: str) -> Importer:
    check_name(name)
    return cast(Importer, importlib.import_module(f"{__name__}.{name}"))


def _foreign(name: str, source: Source, intake: Intake) -> Run | Judged:
    module, _, function = name.partition(":")
    try:
        reader = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise DataError(f"--format {name}: cannot be loaded ({error}). Write package.module:function.") from None
    run = reader(source, intake)
    if not isinstance(run, Run | Judged):
        raise DataError(f"--format {name}: returned {type(run).__name__}, expected a Run or Judged.")
    return run
