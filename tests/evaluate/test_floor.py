"""The A/A floor: its size where theory knows it, and the interval of what the update adds."""

import random
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar

from flipguard.errors import DataError
from flipguard.evaluate.align import align
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.comparison import Answer, Pair
from flipguard.evaluate.difference import tango
from flipguard.evaluate.floor import floor
from flipguard.evaluate.outcomes import scored
from flipguard.evaluate.runs import Entry, Run
from flipguard.evaluate.stats import wilson

few = settings(max_examples=40, deadline=None)


@st.composite
def tables(draw):
    n = draw(st.integers(1, 300))
    first = draw(st.integers(0, n))
    return first, draw(st.integers(0, n - first)), n


def score_by_likelihood(first, second, n, difference):
    """The score statistic with the nuisance share found by maximising the likelihood."""
    smallest, largest = max(0.0, -difference), (1.0 - difference) / 2.0

    def surprise(share):
        cells = ((first, share + difference), (second, share), (n - first - second, 1.0 - 2.0 * share - difference))
        return -sum(k * np.log(max(p, 1e-300)) for k, p in cells if k)

    share = minimize_scalar(surprise, bounds=(smallest, largest), method="bounded", options={"xatol": 1e-13}).x
    ends = min((smallest, share, largest), key=surprise)
    return (first - second - n * difference) / np.sqrt(n * (2 * ends + difference * (1 - difference)))


@few
@given(table=tables())
def test_the_ends_are_where_the_score_statistic_is_z(table):
    low, high = tango(*table)
    z = NormalDist().inv_cdf(0.975)
    for end, target in ((low, z), (high, -z)):
        if abs(end) < 1.0 - 1e-6:
            told = brentq(lambda d, goal=target: score_by_likelihood(*table, d) - goal, -1 + 1e-7, 1 - 1e-7, xtol=1e-10)
            assert end == pytest.approx(told, abs=1e-4)


@few
@given(table=tables())
def test_the_interval_holds_the_difference_and_is_mirrored_when_the_samples_change_places(table):
    first, second, n = table
    low, high = tango(*table)
    assert -1.0 <= low <= (first - second) / n <= high <= 1.0
    assert tango(second, first, n) == pytest.approx((-high, -low), abs=1e-9)


def test_without_a_floor_the_interval_is_near_that_of_a_single_share():
    assert tango(30, 0, 400) == pytest.approx(wilson(30, 400), abs=0.003)
    assert tango(0, 0, 0) == (-1.0, 1.0)
    assert tango(7, 0, 7)[1] == 1.0


def sampled(spread, seed, n, shift=0.0):
    """One sample per prompt, rewards spread normally around the prompt's own mean."""
    rng = random.Random(seed)
    entries = {(i, 0): Entry(Answer(i % 7 + shift + rng.gauss(0.0, spread))) for i in range(n)}
    return Run(f"run {seed}", "score", entries, ())


@pytest.mark.parametrize(("spread", "percent"), [(0.1, 24), (0.5, 44), (1.0, 47)])
def test_a_model_against_itself_flips_as_often_as_theory_says(spread, percent):
    """P(d < -margin) for the difference d of two draws, which spreads by sqrt(2) times as much."""
    theory = NormalDist(0.0, spread * 2**0.5).cdf(-0.1)
    assert round(100 * theory) == percent
    one, two, new = (sampled(spread, seed, 4000) for seed in (1, 2, 3))
    told = floor(align(one, new, margin=0.1).pairs, align(one, two, margin=0.1).pairs)
    assert told["nfr"]["value"] == pytest.approx(theory, abs=0.025)
    assert told["excess"]["low"] < 0.0 < told["excess"]["high"]


def test_what_the_update_does_is_told_apart_from_what_sampling_does():
    one, two, worse = sampled(0.5, 1, 2000), sampled(0.5, 2, 2000), sampled(0.5, 3, 2000, shift=-0.5)
    excess = floor(align(one, worse, margin=0.1).pairs, align(one, two, margin=0.1).pairs)["excess"]
    truth = NormalDist(-0.5, 0.5 * 2**0.5).cdf(-0.1) - NormalDist(0.0, 0.5 * 2**0.5).cdf(-0.1)
    assert excess["low"] < truth < excess["high"]
    assert excess["low"] > 0.1
    assert excess["value"] == (excess["only_update"] - excess["only_floor"]) / excess["n"]
    assert excess["low"] < excess["upper"] < excess["high"]


def pairs(*outcomes, repeat=0, cluster=None):
    return [Pair(i, repeat, Answer(), Answer(), outcome, cluster=cluster) for i, outcome in enumerate(outcomes)]


def test_only_prompts_valid_in_both_are_compared():
    update = pairs("negative_flip", "negative_flip", "tie", "invalid", "negative_flip")
    again = pairs("negative_flip", "tie", "negative_flip", "negative_flip", "invalid")
    told = floor(update, again[:4])
    assert (told["nfr"]["k"], told["nfr"]["n"]) == (3, 4)
    assert [told["excess"][key] for key in ("n", "only_update", "only_floor", "value")] == [3, 1, 1, 0.0]
    assert floor(update, again)["nfr"]["n"] == 4
    assert floor(update, [])["excess"] == {
        "value": None, "low": -1.0, "high": 1.0, "lower": -1.0, "upper": 1.0, "over": "pairs",
        "n": 0, "only_update": 0, "only_floor": 0,
    }  # fmt: skip


def test_repeats_that_agree_do_not_narrow_the_excess():
    """Sixty prompts eight times over tell no more than sixty prompts."""
    once_update, once_floor = pairs(*scores(20, 60)), pairs(*scores(5, 60))
    many = range(8)
    update = [pair for repeat in many for pair in pairs(*scores(20, 60), repeat=repeat)]
    again = [pair for repeat in many for pair in pairs(*scores(5, 60), repeat=repeat)]
    alone, together = floor(once_update, once_floor)["excess"], floor(update, again)["excess"]
    assert together["value"] == alone["value"]
    assert 1.0 <= (together["high"] - together["low"]) / (alone["high"] - alone["low"]) <= 1.3


def scores(worse, n):
    old, new = Answer(1.0), Answer(0.0)
    return [scored(old, new if i < worse else old) for i in range(n)]


def test_the_old_run_by_its_name_in_a_file_of_several_is_no_second_sample(write):
    models = ("old", "new", "again")
    path = write("runs.jsonl", [{"id": i, "model": model, "score": i} for i in range(4) for model in models])
    old, new, again = (Path(f"{path}#{model}") for model in models)
    with pytest.raises(DataError, match=r"--floor .*#old: is the old model's run itself"):
        compare_files(old, new, Options(floor=old))
    assert compare_files(old, new, Options(floor=again)).comparison.floor["nfr"]["n"] == 4
