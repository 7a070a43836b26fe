"""The A/A floor: how often the old model gets worse than itself, and how much the update adds to that.

Sampled twice, a model differs from itself, and a judge or a margin calls some of that worse. With a margin of 0.1 and
rewards that spread by 0.1, 0.5 or 1 within a prompt, 24, 44 and 47 % of prompts are negative flips of nothing. What the
update did is the excess over this floor, measured on the same prompts.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict
from typing import Any

from flipguard.evaluate.bootstrap import cluster_of, clustered, difference, resample
from flipguard.evaluate.comparison import Pair
from flipguard.evaluate.permutation import stream
from flipguard.evaluate.sampling import over_clusters
from flipguard.evaluate.stats import proportion


def floor(pairs: Sequence[Pair], again: Sequence[Pair], alpha: float = 0.05, seed: int = 0) -> dict[str, Any]:
    """The rate of negative flips of the old model against itself, and the excess of the update over it.

    Both rates share the old model's first answers, so the excess is a difference of paired shares over the prompts that
    are valid in both: Tango's interval for independent prompts, clusters resampled where a cluster has several.

    Args:
        pairs: the old model against the new one.
        again: the old model against itself, judged by the same rule.
        alpha: error of the bounds.
        seed: of the resampling.

    Returns:
        `nfr` as of any two runs, and `excess` with `value`, `low`, `high`, the one-sided `lower` and `upper` that a
        limit is held against, what they are `over` (pairs or clusters), the number `n` of common prompts, and on how
        many of them only the update or only the floor is a flip.
    """
    valid = [pair for pair in again if pair.outcome != "invalid"]
    rate = proportion(sum(pair.outcome == "negative_flip" for pair in valid), len(valid), alpha)
    shown = asdict(rate)
    whole = clustered(valid, alpha, seed)
    if whole is not None:
        shown = asdict(over_clusters(rate, whole.nfr))
    return {"nfr": shown, "excess": _excess(pairs, valid, alpha, seed)}


def _excess(pairs: Sequence[Pair], again: Sequence[Pair], alpha: float, seed: int) -> dict[str, Any]:
    seen = {(pair.id, pair.repeat): pair.outcome == "negative_flip" for pair in again}
    tallies: dict[Hashable, list[int]] = {}
    for pair in pairs:
        same = seen.get((pair.id, pair.repeat))
        if same is not None and pair.outcome != "invalid":
            tally = tallies.setdefault(cluster_of(pair), [0, 0, 0])
            worse = pair.outcome == "negative_flip"
            tally[0] += 1
            tally[1] += worse and not same
            tally[2] += same and not worse
    n, update, nothing = (sum(tally[column] for tally in tallies.values()) for column in range(3))
    clusters = n > len(tallies)
    parts = [(size, one, other) for size, one, other in tallies.values()]
    draws = list(resample(parts, stream(seed, "floor"))) if clusters else []
    (low, high), (lower, upper) = (difference(update, nothing, n, draws, error) for error in (alpha, 2.0 * alpha))
    return {
        "value": (update - nothing) / n if n else None,
        "low": low,
        "high": high,
        "lower": lower,
        "upper": upper,
        "over": "clusters" if clusters else "pairs",
        "n": n,
        "only_update": update,
        "only_floor": nothing,
    }
