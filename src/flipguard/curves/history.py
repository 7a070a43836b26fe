"""What a run logged: trainer_state.json, as every Hugging Face trainer writes it, as series by metric."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flipguard.errors import DataError, shown

STATE = "trainer_state.json"


@dataclass(frozen=True)
class Run:
    """One run: by metric, its value at each step that logged it, in the order of steps."""

    name: str
    metrics: dict[str, dict[int, float]]


def read_runs(paths: list[Path]) -> list[Run]:
    """The runs behind `paths`, each under the shortest name that no other has.

    Args:
        paths: output folders, checkpoints or trainer_state.json files.

    Raises:
        DataError: a path holds no run, or one is named twice.
    """
    files = [_state_file(path) for path in paths]
    for number, file in enumerate(files):
        if file.resolve() in {other.resolve() for other in files[:number]}:
            raise DataError(f"{paths[number]}: is the same run as another one. Name it once.")
    metrics = [_metrics(file) for file in files]
    return [Run(name, found) for name, found in zip(_names(files), metrics, strict=True)]


def _state_file(path: Path) -> Path:
    """The file that holds the whole history of the run at `path`: its own, else that of the last checkpoint."""
    if path.is_file():
        return path
    if not path.exists():
        raise DataError(f"{path}: no such run. Name the output folder of a training, or its {STATE}.")
    if (path / STATE).is_file():
        return path / STATE
    checkpoints = [file for file in path.glob(f"checkpoint-*/{STATE}") if _step_of(file.parent) >= 0]
    if not checkpoints:
        raise DataError(f"{path}: holds no {STATE}, nor does a checkpoint in it. Name the output folder of a training.")
    return max(checkpoints, key=lambda file: _step_of(file.parent))


def _step_of(folder: Path) -> int:
    """120 of checkpoint-120; -1 where the name is another."""
    number = folder.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() and number != folder.name else -1


def _metrics(file: Path) -> dict[str, dict[int, float]]:
    """Series by metric; where a resumed run went through a step twice, the later word counts."""
    try:
        state = json.loads(file.read_bytes())  # NaN and Infinity included, as trainers write them
    except (OSError, ValueError, RecursionError) as error:
        told = f"{file}: cannot be read as JSON ({str(error).splitlines()[0]})."
        raise DataError(f"{told} Name the output folder of a training, or the {STATE} in it.") from None
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise DataError(f"{file}: has no list 'log_history'. A {STATE} of a Hugging Face trainer has one.")
    found: dict[str, dict[int, float]] = {}
    for entry in history:
        step = entry.get("step") if isinstance(entry, dict) else None
        if not isinstance(step, int):
            raise DataError(f"{file}: an entry of 'log_history' has no step: {shown(entry)}.")
        for name, value in entry.items():
            if _is_number(value) and name != "step":
                found.setdefault(name, {})[step] = float(value)
    if not found:
        raise DataError(f"{file}: nothing was logged yet. Train at least trainer.logging_steps steps.")
    return {name: dict(sorted(series.items())) for name, series in found.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _names(files: list[Path]) -> list[str]:
    """Folder names, with as many parents before them as it takes to tell them apart."""
    folders = [file.resolve().parent for file in files]
    folders = [folder.parent if _step_of(folder) >= 0 else folder for folder in folders]
    for length in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-length:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(file) for file in files]
