"""The files that lm-evaluation-harness leaves in a folder: the samples of each task, the results that go with them."""

from __future__ import annotations

import re
from pathlib import Path

from flipguard.errors import DataError
from flipguard.evaluate.intake import Duplicates
from flipguard.evaluate.source import Source

NAME = re.compile(r"samples_(?P<task>.+)_(?P<time>[^_]+)\.jsonl(\.gz)?")


def task_of(path: Path) -> str:
    """The task that a file of samples is named after; empty if it has another name."""
    named = NAME.fullmatch(path.name)
    return named["task"] if named else ""


def folders(folder: Path) -> list[Path]:
    """`folder`, or those inside it, one a model, that hold samples."""
    inside = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    found = [path for path in inside if any(NAME.fullmatch(name.name) for name in path.iterdir())]
    return found[:1] if folder in found else found


def only_folder(folder: Path) -> Path:
    """The folder of the only model there is."""
    found = folders(folder)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder}: expected the samples of one model, found {names}. Name one of its folders.")
    return found[0]


def one_run_a_task(folder: Path, rule: Duplicates) -> tuple[list[Path], list[str]]:
    """One file for each task; where a task ran several times, the one that the rule says."""
    runs: dict[str, list[tuple[str, Path]]] = {}
    for path in folder.iterdir():
        if named := NAME.fullmatch(path.name):
            runs.setdefault(named["task"], []).append((named["time"], path))
    notes = []
    for task, found in sorted(runs.items()):
        found.sort()
        if len(found) > 1 and rule == "error":
            names = ", ".join(path.name for _, path in found)
            raise DataError(
                f"{folder}: {task} ran several times: {names}. Name a file, or choose --duplicates first or last."
            )
        if len(found) > 1:
            kept = found[0 if rule == "first" else -1][1]
            notes.append(f"Of {len(found)} runs of {task}, {kept.name} was taken.")
    return [found[-1 if rule == "last" else 0][1] for _, found in sorted(runs.items())], notes


def results_of(samples: Path) -> Source | None:
    """The results of the run that `samples` belongs to: those of its time, or the only ones beside it."""
    named = NAME.fullmatch(samples.name)
    beside = sorted([*samples.parent.glob("results_*.json"), *samples.parent.glob("results_*.json.gz")])
    of_its_time = [path for path in beside if named and named["time"] in path.name]
    found = of_its_time or (beside if named else [])
    if len(found) != 1:
        return None
    source = Source.of(found[0])
    return source if isinstance(source.document, dict) else None
