"""Draws from an urn against all numbers drawn one by one in numpy, and ranks against what binomial counts say."""

from random import Random

import numpy as np
import pytest
from scipy.stats import binom

from flipguard.evaluate.urn import FEW, Urn

DRAWS = 3_000
SHARES = [0.025, 0.05, 0.5, 0.95, 0.975]


@pytest.mark.parametrize("tail", [0.2, 1.5])
def test_sums_are_spread_as_those_of_numbers_drawn_one_by_one(tail):
    rng = np.random.default_rng(1)
    numbers, many = np.sort(rng.lognormal(0.0, tail, FEW + 1_000)), FEW
    urn = Urn(numbers.tolist(), Random(2))
    mine = np.array([urn.draw(many).total for _ in range(DRAWS)])
    true = np.array([rng.choice(numbers, many).sum() for _ in range(DRAWS)])
    assert np.abs(np.quantile(mine, SHARES) - np.quantile(true, SHARES)).max() < 0.2 * true.std()
    assert mine.mean() == pytest.approx(many * numbers.mean(), abs=4 * numbers.std() * np.sqrt(many / DRAWS))
    assert mine.std() == pytest.approx(numbers.std() * np.sqrt(many), rel=0.06)


@pytest.mark.parametrize("size", [40, FEW + 1_000])
def test_a_rank_lies_below_a_number_as_often_as_enough_draws_do(size):
    urn, many = Urn(range(size), Random(3)), size - 7
    for rank in (0, many // 2, 9 * many // 10, many - 1):
        found = np.array([urn.draw(many).at(rank) for _ in range(DRAWS)])
        for number in np.unique(np.quantile(found, SHARES).astype(int)):
            chance = binom.sf(rank, many, (number + 1) / size)
            assert np.mean(found <= number) == pytest.approx(chance, abs=4.5 * np.sqrt(chance * (1 - chance) / DRAWS))


def test_nothing_is_drawn_from_an_empty_urn_and_all_of_it_may_be_drawn():
    assert Urn([], Random(0)).draw(0).many == 0
    drawn = Urn([0.5] * (FEW + 1), Random(0)).draw(FEW + 1)
    assert drawn.total == pytest.approx(0.5 * (FEW + 1))
    assert (drawn.deepest, drawn.at(0), drawn.at(FEW)) == (0.5, 0.5, 0.5)
