"""Two candidates against one old model."""

import pytest

from flipguard.evaluate.comparison import Answer, Pair
from flipguard.evaluate.rivals import rival, rivalry
from flipguard.evaluate.stats import mcnemar

WORSE, TIE = "negative_flip", "tie"


def pairs(*outcomes, repeat=0):
    return [Pair(i, repeat, Answer(), Answer(), outcome) for i, outcome in enumerate(outcomes)]


def test_prompts_that_only_one_candidate_broke_decide():
    this, other = pairs(WORSE, WORSE, WORSE, TIE, "invalid", WORSE), pairs(WORSE, TIE, TIE, WORSE, WORSE, "invalid")
    told = rival("B", this, other)
    assert (told.name, told.n, told.only_this, told.only_other) == ("B", 4, 2, 1)
    assert told.p_value == mcnemar(2, 1)
    assert (told.nfr.k, told.nfr.n) == (3, 5)


def test_candidates_that_break_the_same_prompts_do_not_differ():
    assert rivalry(pairs(WORSE, TIE, WORSE), pairs(WORSE, TIE, WORSE)).p_value == 1.0


def test_repeats_change_sides_together():
    """Seven prompts, nine samples each: the test is that of seven coins."""
    this = [pair for repeat in range(9) for pair in pairs(*[WORSE] * 7, repeat=repeat)]
    other = [pair for repeat in range(9) for pair in pairs(*[TIE] * 7, repeat=repeat)]
    told = rivalry(this, other)
    assert (told.n, told.only_first) == (63, 63)
    assert told.p_value == pytest.approx(2 * 0.5**7)
