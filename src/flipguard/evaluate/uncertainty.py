"""What a comparison says beyond its counts: everything that follows from the pairs and the further files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from flipguard.evaluate import refusals, shifts
from flipguard.evaluate.agreement import Agreement, agreement, beside
from flipguard.evaluate.bootstrap import cluster_of, clustered
from flipguard.evaluate.change import change, means
from flipguard.evaluate.companions import Files
from flipguard.evaluate.comparison import Comparison, Pair
from flipguard.evaluate.depth import depth
from flipguard.evaluate.floor import floor
from flipguard.evaluate.health import health
from flipguard.evaluate.labels import correct
from flipguard.evaluate.orders import orders
from flipguard.evaluate.rivals import rival
from flipguard.evaluate.runs import Metric
from flipguard.evaluate.sampling import Sampling, reconsidered
from flipguard.evaluate.sequential import decide_early
from flipguard.evaluate.slices import adjusted

if TYPE_CHECKING:
    from flipguard.evaluate.compare import Options


def measure(
    comparison: Comparison, pairs: Sequence[Pair], metric: Metric, files: Files, options: Options
) -> Comparison:
    """The comparison with all that follows from the pairs and the further files.

    Args:
        comparison: what was counted.
        pairs: what it was counted from.
        metric: how answers were graded.
        files: what was read besides the two runs.
        options: seeds, sizes, limits and detectors.
    """
    alpha, seed = comparison.alpha, options.seed
    comparison = reconsidered(replace(comparison, clustered=clustered(pairs, alpha, seed)), pairs, seed)
    how = Sampling(alpha, seed, comparison.clustered is not None)
    again, other = files.companions.get("floor"), files.companions.get("against")
    return replace(
        comparison,
        severity=_severity(comparison, pairs, seed),
        slices=adjusted(comparison.slices, options.min_slice),
        orders=orders(pairs, how) if metric == "verdicts" else None,
        health=health(pairs, alpha),
        means=None if metric == "verdicts" else means(pairs, metric, how),
        change=change(pairs, alpha, seed) if metric == "score" else None,
        companions=tuple(companion.coverage() for companion in files.companions.values()),
        floor=None if again is None else floor(pairs, again.pairs, alpha, seed),
        rival=None if other is None else rival(other.name, pairs, other.pairs, how),
        refusals=refusals.count(pairs, options.refusal_detector, how=how),
        shifts=shifts.measure(pairs, how),
        sequential=decide_early(pairs, options.max_nfr, alpha, files.arrived) if options.sequential else None,
        agreement=_agreement(pairs, files, options, how),
        labels=None if files.labels is None else correct(pairs, files.labels, alpha, how),
    )


def _severity(comparison: Comparison, pairs: Sequence[Pair], seed: int) -> dict[str, Any] | None:
    """How far scores fell, with bounds; these are None where a score is infinite."""
    if comparison.severity is None:
        return None
    told = depth(pairs, comparison.margin, comparison.alpha, seed)
    return comparison.severity | ({"bounds": None} if told is None else asdict(told))


def _agreement(pairs: Sequence[Pair], files: Files, options: Options, how: Sampling) -> Agreement | None:
    if not files.judges:
        return None
    judged = beside(pairs, files.base, [run for _, run in files.judges], options.margin)
    clusters = {(pair.id, pair.repeat): cluster_of(pair) for pair in pairs} if how.clusters else None
    return agreement(judged, options.alpha, how, clusters)
