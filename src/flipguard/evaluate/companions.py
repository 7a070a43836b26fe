"""Further runs beside the two compared: the old model once more, and another candidate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flipguard.errors import DataError
from flipguard.evaluate import importers
from flipguard.evaluate.align import align, from_judged
from flipguard.evaluate.comparison import Pair
from flipguard.evaluate.intake import Intake
from flipguard.evaluate.runs import Entry, Judged, Run


@dataclass(frozen=True, slots=True)
class Companion:
    """A further run as pairs with the old model, and as it was read."""

    name: str
    format: str
    run: Run | Judged
    pairs: list[Pair]


def accompany(
    option: str, path: Path, base: Run | Judged, intake: Intake, format_name: str | None, *, margin: float
) -> Companion:
    """Pair what `path` holds with the old model, by the rule that the comparison itself goes by.

    Args:
        option: the option that named the file, for the errors.
        path: graded answers of one model; or judgments, whose old side is the same old model.
        base: the old model's run, or the judgments that are compared.
        intake: how rows are taken.
        format_name: of the file; None: found by looking.
        margin: change of score up to which a pair is a tie.
    """
    if any(path.exists() and path.samefile(file) for file in base.files):
        raise DataError(f"--{option} {path}: is the file that is compared. Name another run's file.")
    found, run = importers.read(path, intake, format_name)
    if run.metric != base.metric:
        raise DataError(
            f"--{option} {path}: is graded by '{run.metric}', {base.files[0]} by '{base.metric}': not the same scale. "
            "Grade both alike, or name one key that both have with --metric."
        )
    if isinstance(run, Judged):
        aligned, name = from_judged(run, margin=margin), run.new
    else:
        aligned, name = align(_old_side(base, option, path), run, margin=margin), run.name
    seen = base.entries.keys() if isinstance(base, Run) else base.judgments.keys()
    if not any((pair.id, pair.repeat) in seen for pair in aligned.pairs):
        raise DataError(f"--{option} {path}: has no prompt in common with {base.files[0]}. Use the same ids in both.")
    return Companion(name, found, run, aligned.pairs)


def _old_side(base: Run | Judged, option: str, path: Path) -> Run:
    """The old model's own answers."""
    if isinstance(base, Run):
        return base
    if base.metric == "verdicts":
        raise DataError(
            f"--{option} {path}: holds one model's answers, but {base.files[0]} was judged in pairs. "
            "Name a file of judgments that has the same old model as 'old'."
        )
    entries = {key: Entry(item.old, item.prompt, item.categories, item.cluster) for key, item in base.judgments.items()}
    return Run(base.old, base.metric, entries, base.files)
