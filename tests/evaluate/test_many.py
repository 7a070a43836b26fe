"""Very many numbers at once give what they give one by one."""

from array import array
from collections import Counter
from math import hypot, inf, nan
from operator import sub
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flipguard.evaluate import change, columns, permutation, shifts, student
from flipguard.evaluate.align import outcomes
from flipguard.evaluate.columns import Columns
from flipguard.evaluate.comparison import Answer
from flipguard.evaluate.many import all_dropped, all_moved, counted, largest, less, pairs_counted, same, spread
from flipguard.evaluate.outcomes import drop
from flipguard.evaluate.runs import Entry
from flipguard.records import moved

scores = st.sampled_from([0.0, 0.1, 0.2, 0.7, 0.8, 1.0, -1.0, 1e300, -1e300, 5e-324, inf, -inf, nan]) | st.floats()
numbers = st.floats(-1e6, 1e6)
words = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2**32 - 1), st.integers(0, 1)), min_size=1)


@given(st.lists(st.tuples(scores, scores)), st.sampled_from([0.0, 0.1, 0.5]))
def test_outcomes_are_those_of_each_pair(pairs, margin):
    old, new = (array("d", side) for side in zip(*pairs, strict=True)) if pairs else (array("d"), array("d"))
    assert all_moved(old, new, margin) == [moved(*pair, margin) for pair in pairs]


@given(st.lists(st.tuples(scores, scores)), st.sampled_from([0.0, 0.1, 0.5]))
def test_falls_are_those_of_each_pair(pairs, margin):
    old, new = (array("d", side) for side in zip(*pairs, strict=True)) if pairs else (array("d"), array("d"))
    assert all_dropped(old, new, margin) == [drop(*pair, margin) for pair in pairs]


@given(st.lists(numbers, min_size=1))
def test_the_spread_is_the_length_of_what_differs(values):
    mean = sum(values) / len(values)
    assert spread(values, mean) == pytest.approx(hypot(*(value - mean for value in values)), rel=1e-9, abs=1e-9)


@given(arrays(float, st.integers(2, 40), elements=numbers.filter(bool)), st.data())
def test_the_largest_and_the_spread_of_the_rest(values, data):
    most = data.draw(st.integers(1, len(values) - 1))
    sizes = sorted(map(abs, values.tolist()), reverse=True)
    top, rest = largest(array("d", values.tolist()), most)
    assert top == sizes[:most]
    assert rest == pytest.approx(hypot(*sizes[most:]), rel=1e-9)


@given(words)
def test_counts_and_comparisons_are_those_of_each_row(rows):
    one, other = (array("I", column) for column in list(zip(*rows, strict=True))[:2])
    told = bytes(row[2] for row in rows)
    assert counted(one, told) == Counter(row[0] for row in rows if row[2])
    assert less(one, other, told) == [at for at, row in enumerate(rows) if row[2] and row[0] < row[1]]
    marks = bytes(row[0] for row in rows), bytes(row[1] % 256 for row in rows)
    assert pairs_counted(*marks) == Counter(zip(*marks, strict=True))


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3))))
def test_the_same_numbers_are_in_the_same_rows(pairs):
    one, other = (array("q", side) for side in zip(*pairs, strict=True)) if pairs else (array("q"), array("q"))
    assert same(one, other) == [row for row, pair in enumerate(pairs) if pair[0] == pair[1]]


def test_signs_of_many_changes_are_those_of_few(monkeypatch):
    changes = [(-1.0) ** number * number / 7 for number in range(1, 60)]
    told = []
    for most in (10**9, 59):
        monkeypatch.setattr(permutation, "MOST", most)
        told.append(permutation._drawn(changes, Random(1), 50))
    assert told[0] == pytest.approx(told[1], rel=1e-12)


def run(n, shift):
    keys = [(number, 0) for number in range(n)]
    answers = [
        Answer((number * 7 % 11) / 10 + shift * (number % 5 - 2), "w " * (number * shift % 7)) for number, _ in keys
    ]
    return Columns.listed(keys, [Entry(answer) for answer in answers])


def test_every_statistic_is_the_same_with_and_without_numpy(monkeypatch):
    """All that looks at very many rows by numpy, against the way of few rows."""
    from flipguard.evaluate.pairs import Pairs

    told = []
    for many in (10, 10**9):
        for module in (columns, permutation, shifts, student):
            monkeypatch.setattr(module, "MANY", many)
        for name in ("align", "pairs"):
            monkeypatch.setattr(f"flipguard.evaluate.{name}.MANY", many)
        monkeypatch.setattr(permutation, "MOST", 100)
        old, new = run(400, 0), run(400, 3)
        found = outcomes(old, new, margin=0.1)
        pairs = Pairs(old, new, found, [()] * 400, [None] * 400)
        told.append((found, pairs.falls(0.1), shifts.measure(pairs), change.means(pairs), change.change(pairs)))
    by_numpy, plain = told
    assert by_numpy[:3] == plain[:3]
    for one, other in zip(by_numpy[3:], plain[3:], strict=True):
        assert [getattr(one, name) for name in one.__slots__] == pytest.approx(
            [getattr(other, name) for name in other.__slots__], rel=1e-12
        )


def test_scores_of_which_one_is_missing_stay_as_they_are():
    whole, missing = columns.packed([1.0, 0.5]), columns.packed([1.0, None])
    assert isinstance(whole, array)
    assert missing == [1.0, None]
    assert list(map(sub, whole, whole)) == [0.0, 0.0]
