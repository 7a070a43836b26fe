"""Judges side by side: coefficients against statsmodels, brute force and a published example; then through compare."""

import gzip
import random
from collections import Counter
from itertools import permutations
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa

from flipguard.errors import DataError
from flipguard.evaluate.agreement import agreement, cohen, krippendorff
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.sampling import Sampling

LLMBAR = Path(__file__).parents[3] / "shared" / "data" / "preferences" / "llmbar_419_with_judges.jsonl.gz"
needs_llmbar = pytest.mark.skipif(not LLMBAR.exists(), reason="the public data sets are not beside this project")
NAMES = "abc"
few = settings(max_examples=60, deadline=None)


@few
@given(counts=st.lists(st.integers(0, 30), min_size=9, max_size=9))
def test_kappa_and_its_interval_are_those_of_statsmodels(counts):
    table = {(NAMES[i // 3], NAMES[i % 3]): count for i, count in enumerate(counts)}
    rows = [sum(counts[3 * i : 3 * i + 3]) for i in range(3)]
    columns = [sum(counts[i::3]) for i in range(3)]
    n = sum(counts)
    if n == 0 or sum(r * c for r, c in zip(rows, columns, strict=True)) == n * n:
        assert cohen(table) is None
        return
    with np.errstate(invalid="ignore"):  # 0 / 0 in its test of kappa 0, where one of the judges knows one word only
        ours, theirs = cohen(table), cohens_kappa([counts[:3], counts[3:6], counts[6:]])
    assert ours.value == pytest.approx(theirs.kappa)
    if theirs.var_kappa >= 0:  # rounding may leave it below 0 there
        assert ours.low == pytest.approx(max(-1, theirs.kappa_low), abs=1e-6)
        assert ours.high == pytest.approx(min(1, theirs.kappa_upp), abs=1e-6)


def slow_alpha(units):
    """Coincidences of ordered pairs of values, straight from the definition."""
    coincidences = Counter()
    for values in units:
        for one, other in permutations(range(len(values)), 2):
            coincidences[values[one], values[other]] += 1 / (len(values) - 1)
    totals = Counter()
    for (one, _), weight in coincidences.items():
        totals[one] += weight
    n = sum(totals.values())
    observed = sum(weight for (one, other), weight in coincidences.items() if one != other)
    expected = sum(totals[one] * totals[other] for one in totals for other in totals if one != other) / (n - 1)
    return 1 - observed / expected if expected else None


@few
@given(units=st.lists(st.lists(st.sampled_from(NAMES), min_size=2, max_size=4), min_size=2, max_size=12))
def test_alpha_and_its_jackknife_are_those_of_the_definition(units):
    ours, expected = krippendorff(units), slow_alpha(units)
    if expected is None:
        assert ours is None
        return
    assert ours.value == pytest.approx(expected)
    left = [slow_alpha(units[:i] + units[i + 1 :]) for i in range(len(units))]
    left = [1.0 if one is None else one for one in left]
    mean = sum(left) / len(left)
    error = (sum((one - mean) ** 2 for one in left) * (len(left) - 1) / len(left)) ** 0.5
    assert ours.low == pytest.approx(max(-1.0, expected - 1.959964 * error), abs=1e-5)


def test_alpha_of_the_published_example_of_four_observers_with_missing_values():
    observers = ["123321412***", "1233224125*3", "*3332342251*", "12332441251*"]  # Krippendorff, 2011, section D
    assert krippendorff([[value for value in unit if value != "*"] for unit in zip(*observers, strict=True)]).value == (
        pytest.approx(0.743, abs=0.001)
    )


def test_judges_who_always_agree_or_share_nothing():
    same = {(i, 0): "tie" if i % 2 else "negative_flip" for i in range(10)}
    both = agreement({"a": same, "b": same})
    assert (both.couples[0].kappa.value, both.krippendorff.value, both.unanimous.k) == (1.0, 1.0, 10)
    apart = agreement({"a": {(1, 0): "tie"}, "b": {(2, 0): "tie"}})
    assert (apart.couples[0].kappa, apart.couples[0].agreed.n, apart.krippendorff) == (None, 0, None)
    assert agreement({"a": {(1, 0): "tie"}, "b": {(1, 0): "tie"}}).couples[0].kappa is None


def rows(judge, winners):
    return [
        {"id": i, "judge": judge, "old": {}, "new": {}, "verdicts": [{"order": "old_first", "winner": winner}]}
        for i, winner in enumerate(winners)
    ]


def test_other_judges_come_from_their_files_and_the_compared_one_decides(write):
    files = [
        write(f"{name}.jsonl", rows(name, winners)) for name, winners in (("x", ["old", "tie"]), ("y", ["old"] * 2))
    ]
    comparison = compare_files(files[0], None, Options(also=[str(files[1])])).comparison
    assert [(judge.name, judge.nfr.k, judge.nfr.n) for judge in comparison.agreement.judges] == [
        ("x", 1, 2),
        ("y", 2, 2),
    ]
    assert comparison.negative_flips == 1
    assert comparison.agreement.couples[0].agreed.k == 1
    assert comparison.to_json()["agreement"]["judges"][1]["name"] == "y"


def test_one_file_of_several_judges_gives_the_others_beside_the_one_that_is_compared(write):
    path = write("j.jsonl", rows("x", ["old", "tie"]) + rows("y", ["invalid", "old"]) + rows("z", ["tie", "new"]))
    found = compare_files(path, None, Options(metric="y", also=[str(path)], max_invalid=1.0)).comparison.agreement
    assert [(judge.name, judge.nfr.k, judge.nfr.n) for judge in found.judges] == [("y", 1, 1), ("x", 1, 2), ("z", 0, 2)]
    assert found.unanimous.n == 2


def test_two_files_by_judges_of_one_name_are_told_apart(write):
    files = [write(f"{name}.jsonl", rows("same", ["old", "tie"])) for name in "ab"]
    found = compare_files(files[0], None, Options(also=[str(files[1])])).comparison.agreement
    assert [judge.name for judge in found.judges] == ["same", f"same in {files[1]}"]


def test_what_cannot_stand_beside_is_one_clear_error(write):
    base = write("j.jsonl", rows("x", ["old"]))
    score, other = write("s.jsonl", [{"id": 0, "score": 1}]), write("o.jsonl", [rows("y", ["old"])[0] | {"id": "k"}])
    for path, said in ((score, "one model's answers"), (other, "no graded pair in common"), (base, "no other judge")):
        with pytest.raises(DataError, match=f"--also .*{said}"):
            compare_files(base, None, Options(also=[str(path)]))


@needs_llmbar
def test_six_judges_of_llmbar_in_both_orders_stand_side_by_side(write):
    with gzip.open(LLMBAR) as file:
        items = [orjson.loads(line) for line in file]
    winner = {"1": "old", "2": "new"}  # of output 1 and 2, whichever was shown first
    files = {}
    for judge in items[0]["judges"]:
        judgments = []
        for item in items:
            said = item["judges"][judge]
            verdicts = [
                {"order": order, "winner": winner.get(said[key], "invalid")}
                for order, key in (("old_first", "no_swap"), ("new_first", "swap"))
            ]
            judgments.append({"id": item["id"], "judge": judge, "old": {}, "new": {}, "verdicts": verdicts})
        files[judge] = write(f"{judge}.jsonl", judgments)
    first, *others = files.values()
    found = compare_files(
        first, None, Options(also=[str(path) for path in others], max_invalid=1.0)
    ).comparison.agreement
    assert {judge.name for judge in found.judges} == set(files)
    assert len(found.couples) == 15
    assert all(couple.agreed.n > 350 for couple in found.couples)
    assert 0 < found.krippendorff.low < found.krippendorff.high < 1
    kappas = {frozenset((couple.first, couple.second)): couple.kappa for couple in found.couples}
    assert kappas[frozenset(("ChatGPT", "ChatGPT-0301"))].low > kappas[frozenset(("ChatGPT", "Falcon"))].high


def test_prompts_graded_three_times_over_agree_no_more_surely_than_once():
    rng = random.Random(4)
    names = ["negative_flip", "positive_flip", "tie"]
    first = [rng.choice(names) for _ in range(200)]
    second = [one if rng.random() < 0.7 else rng.choice(names) for one in first]
    keys = [(i, 0) for i in range(200)]
    once = agreement({name: dict(zip(keys, said, strict=True)) for name, said in (("a", first), ("b", second))})
    thrice = {
        name: {(i, copy): one for i, one in enumerate(outcomes) for copy in range(3)}
        for name, outcomes in (("a", first), ("b", second))
    }
    found, naive = agreement(thrice, how=Sampling(clusters=True)), agreement(thrice)
    for theirs, ours, wrong in (
        (once.couples[0].kappa, found.couples[0].kappa, naive.couples[0].kappa),
        (once.krippendorff, found.krippendorff, naive.krippendorff),
    ):
        assert ours.value == pytest.approx(theirs.value, abs=0.01)
        assert ours.high - ours.low == pytest.approx(theirs.high - theirs.low, rel=0.05)
        assert wrong.high - wrong.low < 0.7 * (ours.high - ours.low)
    assert found.unanimous.over == found.judges[0].nfr.over == found.couples[0].agreed.over == "clusters"
    own = {(i, copy): (i, copy) for i in range(200) for copy in range(3)}
    apart = agreement(thrice, how=Sampling(clusters=True), clusters=own)
    assert apart == naive, "clusters of one pair each are no clusters"
