"""Further files beside the two compared: the old model once more, another candidate, other judges, human labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flipguard.errors import DataError
from flipguard.evaluate import importers
from flipguard.evaluate.agreement import read_judges
from flipguard.evaluate.align import align, from_judged
from flipguard.evaluate.comparison import Alignment, Coverage, Outcome
from flipguard.evaluate.intake import Intake
from flipguard.evaluate.labels import read_labels
from flipguard.evaluate.pairs import Pairs
from flipguard.evaluate.provenance import file_input, run_inputs
from flipguard.evaluate.runs import Entry, Judged, Key, Run


@dataclass(frozen=True, slots=True)
class Companion:
    """A further run as pairs with the old model, and as it was read.

    `alignment` is that of the prompts compared, as the old side, with the prompts of this run.
    """

    name: str
    format: str
    run: Run | Judged
    option: str
    pairs: Pairs
    alignment: Alignment

    def coverage(self) -> Coverage:
        """How much of the comparison this run covers."""
        invalid = list(self.pairs.outcomes).count("invalid")
        return Coverage(self.option, self.name, self.alignment, len(self.pairs) - invalid, invalid)


@dataclass(frozen=True, slots=True)
class Files:
    """What was read besides the two runs, `base` being the old model's; `labels` is None where there are none.

    `arrived` are the new run's keys in the order of its file; empty where one file holds both sides.
    """

    base: Run | Judged
    companions: Mapping[str, Companion] = field(default_factory=dict)
    judges: Sequence[tuple[str, Judged]] = ()
    labels: Mapping[Key, Outcome] | None = None
    labels_path: Path | None = None
    arrived: Sequence[Key] = ()

    def inputs(self) -> list[dict[str, Any]]:
        """The files with their hash, for the provenance; one of several judges stands there once for each."""
        runs = [(companion.format, companion.run) for companion in self.companions.values()]
        given = [told for name, run in (*runs, *self.judges) for told in run_inputs(name, run)]
        if self.labels_path is not None:
            given.append(file_input(self.labels_path, "labels", len(self.labels or ())))
        return given


@dataclass(frozen=True, slots=True)
class Further:
    """The files asked for besides the two runs.

    Attributes:
        floor: graded answers of the old model sampled again, or judgments of it against itself.
        against: graded answers of another candidate, or judgments of it against the same old model.
        also: judgments by other judges.
        labels: what people said of some pairs.
    """

    floor: Path | None = None
    against: Path | None = None
    also: Sequence[str] = ()
    labels: str | None = None

    def read(self, runs: Sequence[Run | Judged], intake: Intake, format_name: str | None, *, margin: float) -> Files:
        """All of them; the further runs paired with the old model of `runs`, by the option that named them."""
        base, newest = runs[0], runs[-1]
        named = {"floor": self.floor, "against": self.against}
        companions = {
            option: accompany(option, path, base, intake, format_name, margin=margin)
            for option, path in named.items()
            if path is not None
        }
        labels = None if self.labels is None else Path(self.labels)
        return Files(
            base,
            companions,
            read_judges(base, self.also, intake),
            None if labels is None else read_labels(labels),
            labels,
            tuple(newest.entries) if isinstance(newest, Run) else (),
        )


def _old_name(base: Run | Judged) -> str:
    return base.name if isinstance(base, Run) else base.old


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
    if isinstance(run, Run) and run.name == _old_name(base) and run.files[0].samefile(base.files[0]):
        raise DataError(f"--{option} {path}: is the old model's run itself. Name another run.")
    if run.metric != base.metric:
        raise DataError(
            f"--{option} {path}: is graded by '{run.metric}', {base.files[0]} by '{base.metric}': not the same scale. "
            "Grade both alike, or name one key that both have with --metric."
        )
    if isinstance(run, Judged):
        aligned, name = from_judged(run, margin=margin), run.new
    else:
        aligned, name = (
            align(_old_side(base, option, path), run, margin=margin, changed_targets=intake.changed_targets),
            run.name,
        )
    alignment = _alignment(base, run, aligned.alignment)
    if not alignment.matched:
        raise DataError(f"--{option} {path}: has no prompt in common with {base.files[0]}. Use the same ids in both.")
    return Companion(name, found, run, option, aligned.pairs, alignment)


def _alignment(base: Run | Judged, run: Run | Judged, within: Alignment) -> Alignment:
    """How the prompts compared and those of a further run fit together."""
    compared, there = _keys(base), _keys(run)
    matched = len(compared & there)
    return Alignment(
        old=len(compared),
        new=len(there),
        matched=matched,
        only_old=len(compared) - matched,
        only_new=len(there) - matched,
        duplicates=run.duplicates,
        changed_prompts=within.changed_prompts,
        changed_targets=within.changed_targets,
    )


def _keys(run: Run | Judged) -> AbstractSet[Key]:
    return run.entries.keys() if isinstance(run, Run) else run.judgments.keys()


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
