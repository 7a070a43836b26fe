"""Two runs -> one Comparison: read, align, count, decide. What every number means stands in stats and outcomes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from flipguard.errors import DataError, FlipGuardError, choose, shown
from flipguard.evaluate import importers, stats
from flipguard.evaluate.align import Aligned, align, from_judged
from flipguard.evaluate.change import severity
from flipguard.evaluate.columns import without_collector
from flipguard.evaluate.companions import Further
from flipguard.evaluate.comparison import Alignment, Comparison, Net, Pair, Result, Slice
from flipguard.evaluate.difference import tango
from flipguard.evaluate.flipfile import Draft
from flipguard.evaluate.gate import decide
from flipguard.evaluate.intake import CHANGED_TARGETS, DUPLICATES, BadLines, ChangedTargets, Duplicates, Intake
from flipguard.evaluate.pairs import Pairs
from flipguard.evaluate.provenance import Hashes, notes, provenance, reading, run_inputs
from flipguard.evaluate.runs import Judged, Metric, Run
from flipguard.evaluate.slices import adjusted
from flipguard.evaluate.tally import Tally, tally
from flipguard.evaluate.uncertainty import measure

LARGEST = 2**63 - 1  # whole number that JSON readers understand


@dataclass(frozen=True, slots=True)
class Options:
    """What `flipguard compare` can be told; checked when made."""

    margin: float = 0.1
    max_nfr: float | None = None
    max_unmatched: float = 0.05
    max_invalid: float = 0.02
    duplicates: Duplicates = "error"
    changed_targets: ChangedTargets = "error"
    format: str | None = None
    metric: str | None = None
    questions: Path | None = None
    skip_bad: int = 0
    alpha: float = 0.05
    refusal_detector: str | None = None
    sequential: bool = False
    floor: Path | None = None
    against: Path | None = None
    seed: int = 0
    min_slice: int = 10
    labels: str | None = None
    also: Sequence[str] = ()
    policy: Path | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.margin) and self.margin >= 0.0):
            raise FlipGuardError(f"--margin {shown(self.margin)}: choose a number >= 0, in units of the score.")
        for name in ("max_nfr", "max_unmatched", "max_invalid"):
            _check_share(name.replace("_", "-"), getattr(self, name))
        if not stats.LEAST_ALPHA <= self.alpha < 0.5:
            raise FlipGuardError(f"--alpha {shown(self.alpha)}: choose a number between 1e-6 and 0.5, 0.05 for 95 %.")
        if not 0 <= self.skip_bad <= LARGEST:
            raise FlipGuardError(f"--skip-bad {self.skip_bad}: choose how many malformed lines to tolerate, 0 or more.")
        if not 0 <= self.min_slice <= LARGEST:
            raise FlipGuardError(f"--min-slice {self.min_slice}: choose how many pairs a category needs, 0 or more.")
        if abs(self.seed) > LARGEST:
            raise FlipGuardError(f"--seed {self.seed}: choose a whole number of at most 64 bits.")
        _check_rule("duplicates", self.duplicates, DUPLICATES)
        _check_rule("changed-targets", self.changed_targets, CHANGED_TARGETS)
        if self.metric is not None and not self.metric.strip():
            raise FlipGuardError("--metric: is empty. Choose the name of a grade in the files, such as score or acc.")
        if self.format is not None:
            importers.check_name(self.format)


def compare(  # the keyword-only names are fields of the Comparison
    pairs: Sequence[Pair],
    alignment: Alignment,
    *,
    old: str,
    new: str,
    metric: Metric,
    margin: float,
    alpha: float = 0.05,
) -> Comparison:
    """Count the outcomes of `pairs` and put an interval to each rate; the verdict is still to be decided.

    Args:
        pairs: all matched pairs, invalid ones included.
        alignment: how the two runs fitted together.
        old: name of the model before.
        new: name of the model after.
        metric: how answers were graded; `nfr_given_correct` has a meaning for `correct` only, severity for `score`.
        margin: change of score up to which a pair is a tie; 0 for the other metrics.
        alpha: error of the bounds: 0.05 for 95 %.
    """
    table = Pairs.of(pairs)
    whole, slices = tally(table)
    return Comparison(
        old=old,
        new=new,
        n=whole.n,
        negative_flips=whole.negative_flip,
        positive_flips=whole.positive_flip,
        ties=whole.tie,
        inconsistent=whole.inconsistent,
        invalid=whole.invalid,
        nfr=stats.proportion(whole.negative_flip, whole.n, alpha),
        win_rate=stats.proportion(whole.positive_flip, whole.n, alpha),
        nfr_given_correct=stats.proportion(whole.negative_flip, whole.right, alpha) if metric == "correct" else None,
        net=_net(whole, alpha),
        slices=adjusted(_slices(slices, alpha)),
        alignment=alignment,
        margin=margin,
        alpha=alpha,
        severity=severity(table, margin) if metric == "score" else None,
    )


@without_collector()
def compare_files(
    old: Path, new: Path | None, options: Options, *, command: Sequence[str] = (), folder: Path | None = None
) -> Result:
    """Compare two files of answers, or one that holds both sides, and decide by the limits in `options`.

    Args:
        old: the run of the model before, or, where `new` is None, a file of judgments.
        new: the run of the model after.
        options: margins, limits and how to read.
        command: the command line as typed, kept in the provenance.
        folder: where the result will be written, so that very many flips are written there already.
    """
    if options.policy is not None:
        from flipguard.evaluate.release import compare_by

        return compare_by(options.policy, old, new, options, command=command, folder=folder)
    bad = BadLines(options.skip_bad)
    intake = Intake(options.duplicates, options.metric, bad, options.questions, options.changed_targets)
    hashes = Hashes()
    runs = importers.read_runs(old, new, intake, options.format, hashes.begin)
    for _, run in runs:
        hashes.begin(run)
    metric = runs[0][1].metric
    margin = options.margin if metric == "score" else 0.0
    aligned = _align(runs, old, margin, options.changed_targets)
    draft = None if folder is None else Draft.begun(folder, aligned.pairs, margin)
    further = Further(options.floor, options.against, options.also, options.labels)
    files = further.read([run for _, run in runs], intake, options.format, margin=margin)
    names = _names([run for _, run in runs], (old, new))
    comparison = compare(
        aligned.pairs, aligned.alignment, old=names[0], new=names[1], metric=metric, margin=margin, alpha=options.alpha
    )
    comparison = measure(comparison, aligned.pairs, metric, files, options)
    verdict, reason = decide(
        comparison, max_nfr=options.max_nfr, max_unmatched=options.max_unmatched, max_invalid=options.max_invalid
    )
    told = notes(aligned, intake.bad, comparison)
    inputs = [*(given for name, run in runs for given in run_inputs(name, run, hashes)), *files.inputs()]
    facts = {"metric": metric, **reading(aligned, intake.bad), "notes": told}
    comparison = replace(
        comparison,
        verdict=verdict,
        reason=" ".join([reason, *told]),
        provenance=provenance(command, inputs, asdict(options), facts),
    )
    return Result(comparison, aligned.pairs, draft)


def _net(whole: Tally, alpha: float) -> Net:
    better, worse = whole.positive_flip, whole.negative_flip
    low, high = tango(better, worse, whole.n, alpha)
    return Net((better - worse) / whole.n if whole.n else None, stats.mcnemar(worse, better), low=low, high=high)


def _slices(tallies: dict[str, Tally], alpha: float) -> list[Slice]:
    return [
        Slice(
            name=name,
            n=tally.n,
            negative_flips=tally.negative_flip,
            positive_flips=tally.positive_flip,
            nfr=stats.proportion(tally.negative_flip, tally.n, alpha),
            win_rate=stats.proportion(tally.positive_flip, tally.n, alpha),
            p_adjusted=None,
        )
        for name, tally in sorted(tallies.items())
    ]


def _align(
    runs: Sequence[tuple[str, Run | Judged]], path: Path, margin: float, changed_targets: ChangedTargets
) -> Aligned:
    first = runs[0][1]
    if len(runs) == 1 and isinstance(first, Judged):
        return from_judged(first, margin=margin)
    if len(runs) == 1:
        raise DataError(f"{path}: holds one model's answers ({runs[0][0]}). Name the new run's file too.")
    second = runs[1][1]
    if isinstance(first, Judged) or isinstance(second, Judged):
        both = first if isinstance(first, Judged) else second
        raise DataError(
            f"{both.files[0]}: already holds both models' answers. Compare it alone, without a second file."
        )
    return align(first, second, margin=margin, changed_targets=changed_targets)


def _names(runs: Sequence[Run | Judged], paths: tuple[Path, Path | None]) -> tuple[str, str]:
    names = [name for run in runs for name in ([run.old, run.new] if isinstance(run, Judged) else [run.name])]
    if names[0] != names[1]:
        return names[0], names[1]
    return (str(paths[0]), str(paths[1])) if paths[1] is not None else (f"{names[0]} (old)", f"{names[1]} (new)")


def _check_rule(name: str, rule: str, choices: Sequence[str]) -> None:
    if rule not in choices:
        raise FlipGuardError(f"--{name}: unknown rule '{rule}'. {choose(rule, choices)}")


def _check_share(name: str, share: float | None) -> None:
    if share is not None and not 0.0 <= share <= 1.0:
        raise FlipGuardError(f"--{name} {shown(share)}: choose a share between 0 and 1; 0.05 is 5 %.")
