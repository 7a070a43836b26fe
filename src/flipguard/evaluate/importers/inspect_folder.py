"""A folder of Inspect logs as one run: each task a slice, `FOLDER#MODEL` where it holds several models.

A task that ran several times needs a choice. Logs of one task with other arguments are tasks of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flipguard.errors import DataError, choose, shown
from flipguard.evaluate.intake import Intake, of_one_task
from flipguard.evaluate.numbers import scale_of
from flipguard.evaluate.runs import Entry, Key, Run
from flipguard.evaluate.source import Source
from flipguard.files import open_binary, reading, to_json
from flipguard.records import Row

BEGINNING = 65_536  # bytes within which a log in JSON says what it is
IS_LOG = re.compile(rb'"status"\s*:.*"eval"\s*:\s*\{', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Log:
    """One log of the folder, not yet read beyond its header."""

    source: Source
    task: str
    arguments: str
    model: str
    created: str
    status: str


def holds_logs(folder: Path) -> bool:
    """Whether there are logs in `folder` or in a folder inside it."""
    return next(_paths(folder), None) is not None


def read_folder(
    source: Source, intake: Intake, header: Callable[[Source], Row], read: Callable[[Source, Intake], Run]
) -> Run:
    """The logs of one model, read with `read`, as one run."""
    logs = _of_one_model(source, [_log(Source.of(path, alone=source.alone), header) for path in _paths(source.path)])
    named, notes = _one_a_task(source.path, logs, intake)
    _refuse_unknown_tasks(source.path, intake.metric, list(named))
    runs: dict[str, Run] = {}
    for task, log in named.items():
        try:
            runs[task] = read(log.source, replace(intake, metric=_wanted(intake.metric, task)))
        except DataError as error:
            raise of_one_task(error, task) if len(named) > 1 else error from None
    if len(runs) == 1:
        run = next(iter(runs.values()))
        run.notes = (*notes, *run.notes)
        return run
    entries: dict[Key, Entry] = {
        (f"{task}/{key[0]}", key[1]): replace(entry, categories=(task, *entry.categories))
        for task, run in runs.items()
        for key, entry in run.entries.items()
    }
    return Run(
        name=logs[0].model,
        metric=scale_of(entries.values()),
        entries=entries,
        files=tuple(path for run in runs.values() for path in run.files),
        duplicates=sum(run.duplicates for run in runs.values()),
        graded={task: run.graded[""] for task, run in runs.items()},
        notes=(*notes, *(note for run in runs.values() for note in run.notes)),
    )


def _paths(folder: Path) -> Iterator[Path]:
    for place in [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]:
        for path in sorted(place.iterdir()):
            if path.suffix == ".eval" or (path.name.endswith((".json", ".json.gz")) and _is_log(path)):
                yield path


def _is_log(path: Path) -> bool:
    if not path.is_file():
        return False
    with open_binary(path) as file, reading(path):
        return IS_LOG.search(file.read(BEGINNING)) is not None


def _log(source: Source, header: Callable[[Source], Row]) -> Log:
    top = header(source)
    spec = top.get("eval")
    told: dict[str, Any] = spec if isinstance(spec, dict) else {}
    arguments = told.get("task_args")
    return Log(
        source=source,
        task=str(told.get("task", "")).rpartition("/")[2],
        arguments=to_json(arguments).decode() if arguments else "",
        model=str(told.get("model", "")),
        created=str(told.get("created", "")),
        status=str(top.get("status", "started")),
    )


def _of_one_model(source: Source, logs: list[Log]) -> list[Log]:
    if not logs:
        raise DataError(f"{source.path}: holds no logs, .eval or .json. Name the folder that does.")
    models = sorted({log.model for log in logs})
    if source.part is not None and source.part not in models:
        raise DataError(f"{source.path}: holds no log of {shown(source.part)}. {choose(source.part, models)}")
    if source.part is None and len(models) > 1:
        raise DataError(
            f"{source.path}: holds logs of several models: {', '.join(models)}. Name the old and the new one: "
            f"{source.path}#{models[0]} {source.path}#{models[1]}."
        )
    return [log for log in logs if source.part in (None, log.model)]


def _one_a_task(folder: Path, logs: list[Log], intake: Intake) -> tuple[dict[str, Log], list[str]]:
    """One log for each task; where a task ran several times, the one that the rule says."""
    arguments: dict[str, set[str]] = {}
    for log in logs:
        arguments.setdefault(log.task, set()).add(log.arguments)
    runs: dict[str, list[Log]] = {}
    for log in sorted(logs, key=lambda log: (log.created, log.source.path.name)):
        several = len(arguments[log.task]) > 1
        runs.setdefault(f"{log.task} {log.arguments}".strip() if several else log.task, []).append(log)
    notes = []
    for task, found in sorted(runs.items()):
        if len(found) > 1 and intake.duplicates == "error":
            names = ", ".join(f"{log.source.path.name} ({log.status})" for log in found)
            raise DataError(
                f"{folder}: {task} ran several times: {names}. Name a log, or choose --duplicates first or last."
            )
        if len(found) > 1:
            kept = found[0 if intake.duplicates == "first" else -1]
            notes.append(f"Of {len(found)} logs of {task}, {kept.source.path.name} was taken.")
    return {task: found[-1 if intake.duplicates == "last" else 0] for task, found in sorted(runs.items())}, notes


def _words(metric: str | None) -> list[tuple[str, str]]:
    """`a=match b=model_graded_qa` as tasks and scorers; a scorer alone is for every task."""
    if metric is None or "=" not in metric:
        return [("", metric)] if metric else []
    return [(task, scorer) for task, _, scorer in (word.rpartition("=") for word in metric.split())]


def _wanted(metric: str | None, task: str) -> str | None:
    said = dict(_words(metric))
    return said.get(task) or said.get("")


def _refuse_unknown_tasks(folder: Path, metric: str | None, tasks: list[str]) -> None:
    for task, scorer in _words(metric):
        if task and task not in tasks:
            raise DataError(f"{folder}: --metric {task}={scorer}: no such task. {choose(task, tasks)}")
