"""The output folder of a run: whether it is new, interrupted or finished, and how it becomes finished at once.

`flipguard.json` says which recipe a folder belongs to and whether it is finished. A checkpoint counts once its
`trainer_state.json` is there, which the trainer writes last; a torn one is passed over.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from flipguard.errors import RecipeError, shown
from flipguard.files import write_bytes
from flipguard.train.recipe import Recipe

RECORD = "flipguard.json"
ANYTIME = {"trainer.output_dir", "trainer.logging_dir", "trainer.report_to", "trainer.save_total_limit"}


@dataclass(frozen=True)
class RunFolder:
    """Where one run of `recipe` lives."""

    path: Path
    recipe: Recipe

    def open(self, *, resume: bool, overwrite: bool) -> Path | None:
        """Claim the folder for the recipe.

        Returns:
            The checkpoint to continue from, or None to start from the beginning.

        Raises:
            RecipeError: the folder holds a run that neither `resume` nor `overwrite` speaks of, or another recipe's.
        """
        record = self._record()
        if overwrite or record is None:
            self._clear()
        elif not resume and (record["finished"] or self.checkpoint()):
            state = "a finished" if record["finished"] else "an interrupted"
            raise RecipeError(
                f"{self.path}: holds {state} run. --resume continues it, --overwrite starts it anew, "
                "--trainer.output_dir names another folder."
            )
        elif resume:
            self._check_same_recipe(record["recipe"])
        self._write({"finished": False})
        return self.checkpoint()

    def is_finished(self) -> bool:
        """Whether this very recipe has been trained here to its end."""
        record = self._record()
        if record is None or not record["finished"]:
            return False
        self._check_same_recipe(record["recipe"])
        return True

    def checkpoint(self) -> Path | None:
        """The last whole checkpoint."""
        whole = [path for path in self.path.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
        return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    def finish(self, save: Callable[[Path], None], summary: dict[str, Any]) -> None:
        """Let `save` write the model beside the folder, move it in, then say that the run is finished."""
        staging = self.path / ".final"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        save(staging)
        for item in sorted(staging.iterdir()):
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
        if not isinstance(record, dict) or not {"finished", "recipe"} <= record.keys():
            raise RecipeError(f"{self.path / RECORD}: is not a run's record. Name another folder.")
        return record

    def _write(self, content: dict[str, Any]) -> None:
        record = {"recipe": self.recipe.to_json(), **content}
        write_bytes(self.path / RECORD, orjson.dumps(record, option=orjson.OPT_INDENT_2))

    def _clear(self) -> None:
        for path in self.path.glob("checkpoint-*"):
            shutil.rmtree(path)
        (self.path / RECORD).unlink(missing_ok=True)

    def _check_same_recipe(self, earlier: dict[str, Any]) -> None:
        before, now = _flat(earlier), _flat(orjson.loads(orjson.dumps(self.recipe.to_json())))
        for key in sorted((before.keys() | now.keys()) - ANYTIME):
            if before.get(key) != now.get(key):
                raise RecipeError(
                    f"{self.path}: was begun with {key} = {shown(before.get(key))}, the recipe now says "
                    f"{shown(now.get(key))}. Set it back, or --overwrite, or name another --trainer.output_dir."
                )


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
