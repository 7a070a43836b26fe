"""The output folder of a run: whether it is new, interrupted or finished, and how it becomes finished at once.

`flipguard.json` says which recipe a folder belongs to and whether it is finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from safetensors import SafetensorError

from flipguard.errors import DataError, RecipeError, shown
from flipguard.files import write_bytes
from flipguard.processes import is_first
from flipguard.train.checkpoints import last_whole
from flipguard.train.recipe import Recipe
from flipguard.train.together import meet

RECORD = "flipguard.json"
MADE = (RECORD, "*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "config.json", "adapter_config.json")
WEIGHTS = ("model", "adapter_model", "pytorch_model")  # how the names of weight files begin
UNWRITTEN = ("I/O error", "PytorchStreamWriter", "iostream error", "unexpected pos")  # of safetensors and torch.save
ANYTIME = {"trainer.output_dir", "trainer.logging_dir", "trainer.report_to", "trainer.save_total_limit"}


@dataclass(frozen=True)
class RunFolder:
    """Where one run of `recipe` lives; `inputs` says which data and models it means, by their SHA-256."""

    path: Path
    recipe: Recipe
    inputs: dict[str, str]

    def open(self, *, resume: bool, overwrite: bool) -> Path | None:
        """Claim the folder for the recipe.

        Returns:
            The checkpoint to continue from, or None to start from the beginning.

        Raises:
            RecipeError: the folder holds a run that neither `resume` nor `overwrite` speaks of, or another recipe's.
        """
        if overwrite:
            self._clear()
        else:
            self._check_ours(resume=resume)
        self._write({"finished": False})
        return self.checkpoint()

    def is_finished(self) -> bool:
        """Whether this very recipe has been trained here to its end."""
        record = self._record()
        if record is None or not record["finished"]:
            return False
        self._check_same(record)
        return any(path.name.startswith(WEIGHTS) for path in self.path.iterdir())

    def checkpoint(self) -> Path | None:
        """The last whole checkpoint."""
        return last_whole(self.path)

    def finish(self, save: Callable[[Path], None], summary: dict[str, Any]) -> None:
        """Let `save` write the model beside the folder, move it in, then say that the run is finished.

        Every process calls it, since each may hold a part of the weights; the first writes.
        """
        staging = self.path / ".final"
        if is_first():
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
        meet()
        save(staging)
        meet()
        if not is_first():
            return
        for item in sorted(staging.iterdir()):
            if item.is_dir():
                shutil.rmtree(self.path / item.name, ignore_errors=True)  # of a run before, or of a kill right here
            item.replace(self.path / item.name)
        staging.rmdir()
        self._write({"finished": True, **summary})

    def _record(self) -> dict[str, Any] | None:
        try:
            record = orjson.loads((self.path / RECORD).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, orjson.JSONDecodeError) as error:
            raise RecipeError(f"{self.path / RECORD}: cannot be read ({error}). --overwrite starts anew.") from None
        kinds = {"recipe": dict, "inputs": dict, "finished": bool}
        if not isinstance(record, dict) or not all(isinstance(record.get(key), kind) for key, kind in kinds.items()):
            raise RecipeError(f"{self.path / RECORD}: is not a run's record. Name another folder.")
        return record

    def _write(self, content: dict[str, Any]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        record = {"recipe": self.recipe.to_json(), "inputs": self.inputs, **content}
        write_bytes(self.path / RECORD, orjson.dumps(record, option=orjson.OPT_INDENT_2))

    def _clear(self) -> None:
        """Remove what an earlier run left: its checkpoints and the files of its model."""
        for path in self.path.glob("checkpoint-*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
        for pattern in MADE:
            for path in self.path.glob(pattern):
                path.unlink()

    def _check_ours(self, *, resume: bool) -> None:
        record = self._record()
        if record is None:
            self._check_empty()
        elif resume:
            self._check_same(record)
        elif record["finished"] or self.checkpoint():
            state = "a finished" if record["finished"] else "an interrupted"
            raise RecipeError(
                f"{self.path}: holds {state} run. --resume continues it, --overwrite starts it anew, "
                "--trainer.output_dir names another folder."
            )

    def _check_empty(self) -> None:
        found = sorted(path.name for path in self.path.iterdir()) if self.path.is_dir() else []
        if any(name.startswith(("checkpoint-", *WEIGHTS)) for name in found):
            raise RecipeError(
                f"{self.path}: holds a model or checkpoints that are not of this recipe ({shown(', '.join(found))}). "
                "Name another --trainer.output_dir, or --overwrite them."
            )

    def _check_same(self, record: dict[str, Any]) -> None:
        for name, sha256 in self.inputs.items():
            if record.get("inputs", {}).get(name, sha256) != sha256:
                raise RecipeError(
                    f"{self.path}: was trained with another {name} than there is now. --overwrite starts it anew."
                )
        before, now = _flat(record["recipe"]), _flat(orjson.loads(orjson.dumps(self.recipe.to_json())))
        hashed = {key for name in self.inputs for key in (name, f"{name}.path")}  # these may move, not change
        for key in sorted((before.keys() | now.keys()) - ANYTIME - hashed):
            if before.get(key) != now.get(key):
                raise RecipeError(
                    f"{self.path}: was begun with {key} = {shown(before.get(key))}, the recipe now says "
                    f"{shown(now.get(key))}. Set it back, or --overwrite, or name another --trainer.output_dir."
                )


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """Turn a full disk under a checkpoint or the model into a DataError.

    The libraries that write weights have no OSError for it: safetensors has an error of its own, torch a RuntimeError.
    """
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        if not any(sign in reason for sign in UNWRITTEN):
            raise
        raise DataError(
            f"{folder}: weights cannot be written ({shown(reason, 120)}). Make room, then go on with --resume."
        ) from error


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
