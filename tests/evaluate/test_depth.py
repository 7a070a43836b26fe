"""Bounds of how deep flips are: against resampling written out in numpy, and against what they are for."""

import numpy as np
import pytest

from flipguard.evaluate import depth as module
from flipguard.evaluate import urn as urn_module
from flipguard.evaluate.change import severity
from flipguard.evaluate.comparison import Answer, Pair
from flipguard.evaluate.depth import MEASURES, depth
from flipguard.evaluate.outcomes import scored

MARGIN = 0.1


def pairs(changes, size=1):
    """Pairs whose scores change by so much, `size` after each other in a cluster."""
    sides = [(Answer(1.0), Answer(1.0 + change)) for change in changes]
    return [
        Pair(i, 0, *both, scored(*both, margin=MARGIN), cluster=f"c{i // size}" if size > 1 else None)
        for i, both in enumerate(sides)
    ]


def drawn(seed, n=300, flips=0.2):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(n) < flips, -MARGIN - rng.exponential(0.2, n), 0.0)


@pytest.mark.parametrize(("size", "few"), [(1, 8_192), (5, 8_192), (1, 20)])
def test_bounds_are_those_of_clusters_drawn_in_numpy_with_one_more_in_the_urn(size, few, monkeypatch):
    monkeypatch.setattr(urn_module, "FEW", few)  # beyond, ranks and sums are drawn instead of numbers
    monkeypatch.setattr(urn_module, "LARGEST", 5)
    changes = np.sort(drawn(1)) if size > 1 else drawn(1)
    told = depth(pairs(changes, size), MARGIN, seed=2)
    falls = np.maximum(0.0, -changes - MARGIN).reshape(-1, size)
    assert told.worst == pytest.approx(falls.max())
    rng = np.random.default_rng(3)
    above, below = ({name: [] for name in ("mean", "mean_flip", "p90")} for _ in range(2))
    for kept, added in ((above, told.worst), (below, 0.0)):
        urn = np.vstack([falls, np.full(size, added)])
        for _ in range(4000):
            sample = urn[rng.integers(0, len(urn), len(urn))]
            flips = np.sort(sample[sample > 0])
            kept["mean"].append(sample.mean())
            kept["mean_flip"].append(flips.mean())
            kept["p90"].append(flips[int(np.ceil(0.9 * len(flips))) - 1])
    for name in ("mean", "mean_flip", "p90"):
        bounds = told.bounds[name]
        assert bounds.upper == pytest.approx(np.quantile(above[name], 0.95), rel=0.06), name
        assert bounds.lower == pytest.approx(np.quantile(below[name], 0.05), rel=0.06), name
        assert bounds.low <= bounds.lower <= bounds.value <= bounds.upper <= bounds.high


def test_each_measure_is_the_one_that_is_shown():
    changes = drawn(4)
    shown, told = severity(pairs(changes), MARGIN), depth(pairs(changes), MARGIN)
    assert {name: told.bounds[name].value for name in MEASURES} == pytest.approx(
        {name: shown[name] for name in MEASURES}
    )


def test_the_mean_drop_lies_below_its_bound_as_often_as_promised(monkeypatch):
    monkeypatch.setattr(module, "DRAWS", 199)
    truth = 0.1 * 0.2
    held = [depth(pairs(drawn(seed, 200, 0.1)), MARGIN, seed=seed).bounds["mean"].upper >= truth for seed in range(60)]
    assert np.mean(held) >= 0.9


def test_flips_that_share_clusters_are_known_less_well():
    changes = np.repeat(drawn(5, 80), 5)
    alone, together = (depth(pairs(changes, size), MARGIN).bounds["mean"] for size in (1, 5))
    assert together.value == pytest.approx(alone.value)
    assert together.upper - together.value > 1.5 * (alone.upper - alone.value)


def test_without_a_flip_only_the_mean_has_a_bound_and_without_scores_nothing_has():
    told = depth(pairs([0.0] * 50 + [0.05]), MARGIN)
    assert told.bounds.keys() == {"mean"}
    told = depth(pairs([-0.05] * 100 + [-0.1]), MARGIN)
    assert (told.bounds["mean"].value, told.bounds["mean"].upper) == (0.0, 0.0)  # no score seen is far enough below
    assert depth([Pair(1, 0, Answer(), Answer(), "tie")], MARGIN) is None
    assert depth(pairs([-np.inf, 0.0]), MARGIN) is None
    assert depth([], MARGIN) is None


def test_of_very_many_flips_a_part_gives_nearly_the_same_bounds(monkeypatch):
    changes = drawn(6, 3000, 0.3)
    whole = depth(pairs(changes), MARGIN).bounds
    monkeypatch.setattr(module, "MOST_FLIPS", 500)
    monkeypatch.setattr(module, "WORK", 80_000)
    part = depth(pairs(changes), MARGIN)
    assert part.draws == module.FEWEST_DRAWS
    for name in ("mean", "mean_flip", "p90"):
        assert part.bounds[name].value == whole[name].value
        assert whole[name].value < part.bounds[name].upper == pytest.approx(whole[name].upper, rel=0.15)
