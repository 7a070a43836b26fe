"""Which checkpoint a run can go on from: the last one that a kill or a full disk did not tear."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import orjson
from safetensors import SafetensorError, safe_open

NAME = re.compile(r"checkpoint-(\d+)")
STATE = "trainer_state.json"  # what the trainer writes last
OPTIMIZER = ("optimizer.pt", "scheduler.pt")


def last_whole(folder: Path) -> Path | None:
    """The checkpoint of `folder` with the most steps that can be read to its end, or None."""
    numbered = [(int(found[1]), path) for path in folder.glob("checkpoint-*") if (found := NAME.fullmatch(path.name))]
    return next((path for _, path in sorted(numbered, reverse=True) if is_whole(path)), None)


def is_whole(checkpoint: Path) -> bool:
    """Whether state, weights and optimizer are there and none of their files ends too early.

    Sharded checkpoints (DeepSpeed, FSDP) keep the optimizer in a folder of their own, which is left to their loaders.
    """
    if not _is_json(checkpoint / STATE):
        return False
    sharded = any(path.is_dir() for path in checkpoint.iterdir())
    if not sharded and not all((checkpoint / name).is_file() for name in OPTIMIZER):
        return False
    weights = [*checkpoint.glob("*.safetensors")]
    archives = [*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]
    return (bool(weights) or sharded) and all(map(_is_safetensors, weights)) and all(map(zipfile.is_zipfile, archives))


def _is_json(path: Path) -> bool:
    try:
        return isinstance(orjson.loads(path.read_bytes()), dict)
    except (OSError, orjson.JSONDecodeError):
        return False


def _is_safetensors(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt"):
            return True
    except (OSError, SafetensorError):
        return False
