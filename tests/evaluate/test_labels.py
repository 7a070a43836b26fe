"""The judge corrected by people: against ppi-python where it is there, against derivatives and simulation anywhere."""

import math
import random
from statistics import stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flipguard.errors import DataError
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.comparison import Answer, Pair
from flipguard.evaluate.labels import Table, correct, prediction_powered, read_labels, rogan_gladen
from flipguard.evaluate.sampling import Sampling
from flipguard.evaluate.stats import lower_bound, upper_bound, wilson

CELLS = st.builds(Table, *[st.integers(0, 40)] * 4).filter(lambda table: table.n >= 2)
few = settings(max_examples=40, deadline=None)


@few
@given(table=CELLS, rest=st.integers(1, 400), share=st.floats(0, 1))
def test_the_estimate_and_its_interval_are_those_of_ppi_python(table, rest, share):
    ppi = pytest.importorskip("ppi_py", reason="ppi-python, the oracle, is not installed")
    np = pytest.importorskip("numpy")
    flagged = round(share * rest)
    people = np.repeat([1.0, 1, 0, 0], [table.found, table.missed, table.invented, table.neither])
    judge = np.repeat([1.0, 0, 1, 0], [table.found, table.missed, table.invented, table.neither])
    others = np.repeat([1.0, 0], [flagged, rest - flagged])
    if len({*judge, *others}) == 1:
        return  # 0 / 0 there
    ours, weight = prediction_powered(table, flagged, rest, alpha=0.1)
    theirs = ppi.ppi_mean_pointestimate(people, judge, others)
    low, high = ppi.ppi_mean_ci(people, judge, others, alpha=0.1)
    assert ours.value == pytest.approx(min(1, max(0, theirs.item())), abs=1e-9)
    assert ours.low == pytest.approx(min(1, max(0, low.item())), abs=1e-7)
    assert ours.high == pytest.approx(min(1, max(0, high.item())), abs=1e-7)
    assert 0 <= weight <= 1


def moments(people, judge, others, weight):
    value = sum(people) / len(people) + weight * (sum(others) / len(others) - sum(judge) / len(judge))
    rest = [y - weight * f for y, f in zip(people, judge, strict=True)]
    spread = sum((one - sum(rest) / len(rest)) ** 2 for one in rest) / len(rest) ** 2
    share = sum(others) / len(others)
    return value, spread + weight**2 * share * (1 - share) / len(others)


@few
@given(table=CELLS, rest=st.integers(1, 200), share=st.floats(0, 1))
def test_the_estimate_is_what_the_lists_say_and_no_other_weight_is_much_better(table, rest, share):
    flagged = round(share * rest)
    people = [1.0] * (table.found + table.missed) + [0.0] * (table.invented + table.neither)
    judge = [1.0] * table.found + [0.0] * table.missed + [1.0] * table.invented + [0.0] * table.neither
    others = [1.0] * flagged + [0.0] * (rest - flagged)
    ours, weight = prediction_powered(table, flagged, rest)
    value, variance = moments(people, judge, others, weight)
    assert ours.value == pytest.approx(min(1.0, max(0.0, value)), abs=1e-9)
    half = 1.959963984540054 * math.sqrt(variance)
    assert ours.high - ours.low == pytest.approx(min(1, max(0, value + half)) - min(1, max(0, value - half)), abs=1e-9)


def test_the_rogan_gladen_interval_is_the_delta_method_by_numerical_derivatives():
    table, flagged, n = Table(16, 4, 18, 162), 170, 1000
    point = [170 / 1000, 16 / 20, 162 / 180]

    def rate(judged, sensitivity, specificity):
        return (judged + specificity - 1) / (sensitivity + specificity - 1)

    variance = 0.0
    for at, size in enumerate([1000, 20, 180]):
        up, down = ([p + sign * 1e-6 * (i == at) for i, p in enumerate(point)] for sign in (1, -1))
        variance += ((rate(*up) - rate(*down)) / 2e-6) ** 2 * point[at] * (1 - point[at]) / size
    ours = rogan_gladen(table, flagged, n)
    assert ours.value == pytest.approx(rate(*point))
    assert ours.high - ours.value == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-5)


def test_a_judge_of_80_and_90_percent_turns_10_into_17_percent_and_both_corrections_turn_it_back():
    table = Table(found=80, missed=20, invented=90, neither=810)
    estimate, _ = prediction_powered(table, flagged=1530, rest=9000)
    assert (80 + 90 + 1530) / 10_000 == 0.17
    assert estimate.value == pytest.approx(0.1)
    assert rogan_gladen(table, 1700, 10_000).value == pytest.approx(0.1)


def covered(runs, labelled=100, judged=1000, rate=0.1):
    """How often 100 labels out of 1,000 judged pairs hold the true rate, and how often the judge alone does."""
    rng = random.Random(5)
    ours = alone = 0
    for _ in range(runs):
        truth = [rng.random() < rate for _ in range(judged)]
        pairs = [
            Pair(i, 0, Answer(), Answer(), "negative_flip" if rng.random() < (0.8 if flip else 0.1) else "tie")
            for i, flip in enumerate(truth)
        ]
        labels = {(i, 0): "negative_flip" if truth[i] else "tie" for i in rng.sample(range(judged), labelled)}
        found = correct(pairs, labels)
        ours += found.nfr.low <= rate <= found.nfr.high
        low, high = wilson(found.judged.k, found.judged.n)
        alone += low <= rate <= high
    return ours / runs, alone / runs


def test_a_hundred_labels_restore_the_coverage_that_the_judge_alone_loses():
    ours, alone = covered(runs=150)
    assert ours > 0.88
    assert alone < 0.05


def pairs_of(*outcomes):
    return [Pair(i, 0, Answer(), Answer(), outcome) for i, outcome in enumerate(outcomes)]


def test_where_people_hardly_overrule_the_judge_the_labels_stand_alone_with_an_exact_interval():
    labels = {(i, 0): "negative_flip" if i < 3 else "tie" for i in range(40)}
    found = correct(pairs_of(*["negative_flip"] * 3, *["tie"] * 197), labels)
    assert (found.method, found.weight, found.nfr.value) == ("labels alone", 0.0, 3 / 40)
    assert (found.nfr.low, found.nfr.high) == (lower_bound(3, 40, 0.025), upper_bound(3, 40, 0.025))
    assert correct(pairs_of(*["tie"] * 9), {(i, 0): "tie" for i in range(9)}).nfr.high > 0.3


def test_every_label_is_used_or_counted_as_unused():
    pairs = pairs_of("negative_flip", "tie", "invalid", "inconsistent", "positive_flip")
    labels = {(0, 0): "tie", (1, 0): "negative_flip", (2, 0): "tie", (3, 0): "positive_flip", (9, 0): "tie"}
    found = correct(pairs, labels)
    assert (found.n, found.unused, found.missed, found.invented) == (3, 2, 1, 1)
    assert (found.judged.k, found.judged.n) == (1, 4)
    assert (found.sensitivity.k, found.specificity.n) == (0, 2)
    assert found.rogan_gladen is None


def test_labels_of_other_prompts_are_one_clear_error():
    with pytest.raises(DataError, match="--labels: 0 of 2 labels belong to a valid pair"):
        correct(pairs_of("tie"), {("a", 0): "tie", ("b", 0): "tie"})


def test_a_label_says_the_outcome_or_who_is_better(write):
    rows = [{"id": 1, "outcome": "tie"}, {"id": 1, "repeat": 1, "better": "old"}, {"id": "a", "better": "new"}]
    assert read_labels(write("h.jsonl", rows)) == {(1, 0): "tie", (1, 1): "negative_flip", ("a", 0): "positive_flip"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"outcome": "worse"}, "'outcome' is 'worse'. Choose one of: negative_flip"),
        ({"better": "neu"}, "'better' is 'neu'. Did you mean 'new'"),
        ({"better": None}, "'better' is None"),
        ({}, "neither 'outcome' nor 'better'"),
    ],
)
def test_a_row_without_a_label_is_named_with_its_line(write, row, said):
    with pytest.raises(DataError, match=rf"h\.jsonl:2: .*{said}"):
        read_labels(write("h.jsonl", [{"id": 1, "better": "old"}, {"id": 2} | row]))


def test_two_labels_for_one_pair_are_refused(write):
    with pytest.raises(DataError, match="id 1, repeat 0 has a label already"):
        read_labels(write("h.jsonl", [{"id": 1, "better": "old"}] * 2))


def test_compare_shows_the_corrected_rate_beside_the_judged_one(write):
    old = write("o.jsonl", [{"id": i, "score": 1} for i in range(60)])
    new = write("n.jsonl", [{"id": i, "score": 0 if i % 3 == 0 else 1} for i in range(60)])
    people = write("h.jsonl", [{"id": i, "better": "old" if i % 6 == 0 else "tie"} for i in range(30)])
    labels = compare_files(old, new, Options(labels=str(people))).comparison.labels
    assert (labels.n, labels.invented, labels.missed, labels.method) == (30, 5, 0, "prediction-powered")
    assert labels.nfr.value == pytest.approx(1 / 6)
    assert labels.nfr.low < labels.nfr.value < labels.nfr.high


def test_answers_said_three_times_over_tell_no_more_than_once():
    """Three copies of each pair, one cluster: the interval is that of single pairs, not the root of three narrower."""
    rng = random.Random(2)
    outcomes = ["negative_flip" if rng.random() < 0.3 else "tie" for _ in range(400)]
    people = [("tie" if one == "negative_flip" else "negative_flip") if rng.random() < 0.2 else one for one in outcomes]
    once = correct(pairs_of(*outcomes), {(i, 0): people[i] for i in range(150)})
    thrice = [Pair(i, copy, Answer(), Answer(), one) for i, one in enumerate(outcomes) for copy in range(3)]
    labels = {(i, copy): people[i] for i in range(150) for copy in range(3)}
    found = correct(thrice, labels, how=Sampling(clusters=True))
    assert (found.method, once.method) == ("prediction-powered", "prediction-powered")
    assert found.nfr.value == pytest.approx(once.nfr.value, abs=1e-3)
    assert found.nfr.high - found.nfr.low == pytest.approx(once.nfr.high - once.nfr.low, rel=0.03)
    assert found.rogan_gladen.value == once.rogan_gladen.value
    resampled = []
    for _ in range(300):
        drawn = [rng.randrange(400) for _ in range(400)]
        pairs, asked = (
            pairs_of(*(outcomes[i] for i in drawn)),
            {(at, 0): people[i] for at, i in enumerate(drawn) if i < 150},
        )
        resampled.append(correct(pairs, asked).rogan_gladen.value)
    assert found.rogan_gladen.high - found.rogan_gladen.low == pytest.approx(2 * 1.96 * stdev(resampled), rel=0.15)
    for name in ("sensitivity", "specificity", "judged"):
        ours, theirs = getattr(found, name), getattr(once, name)
        assert ours.over == "clusters"
        assert ours.high - ours.low == pytest.approx(theirs.high - theirs.low, rel=0.15)
    alone = correct(thrice, {key: thrice[3 * key[0]].outcome for key in labels}, how=Sampling(clusters=True))
    plain = correct(thrice, {key: thrice[3 * key[0]].outcome for key in labels})
    assert (alone.method, alone.nfr.value) == ("labels alone", plain.nfr.value)
    assert alone.nfr.high - alone.nfr.low > 1.5 * (plain.nfr.high - plain.nfr.low)
