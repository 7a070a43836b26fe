"""Draws from an urn against all numbers drawn one by one in numpy."""

from random import Random

import numpy as np
import pytest

from flipguard.evaluate.urn import FEW, Urn

DRAWS = 3_000


@pytest.mark.parametrize("tail", [0.2, 1.5])
def test_sums_and_ranks_are_spread_as_those_of_numbers_drawn_one_by_one(tail):
    size, rng = FEW + 1_000, np.random.default_rng(1)
    numbers = rng.lognormal(0.0, tail, size)
    urn, many = Urn(numbers.tolist(), Random(2)), size - 7
    ranks = [many // 2, 9 * many // 10]
    mine = np.array([[drawn.total, *map(drawn.at, ranks)] for drawn in map(urn.draw, [many] * DRAWS)])
    samples = (rng.choice(numbers, many) for _ in range(DRAWS))
    true = np.array([[sample.sum(), *np.partition(sample, ranks)[ranks]] for sample in samples])
    spread = true.std(axis=0)
    shares = [0.025, 0.05, 0.5, 0.95, 0.975]
    differences = (np.quantile(mine, shares, axis=0) - np.quantile(true, shares, axis=0)) / spread
    assert np.abs(differences).max() < 0.2
    assert mine.std(axis=0) == pytest.approx(spread, rel=0.08)


def test_nothing_is_drawn_from_an_empty_urn_and_all_of_it_may_be_drawn():
    assert Urn([], Random(0)).draw(0).many == 0
    drawn = Urn([0.5] * (FEW + 1), Random(0)).draw(FEW + 1)
    assert drawn.total == pytest.approx(0.5 * (FEW + 1))
    assert (drawn.deepest, drawn.at(0), drawn.at(FEW)) == (0.5, 0.5, 0.5)
