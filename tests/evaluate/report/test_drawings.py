from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipguard.evaluate.report.scatter import scatter, thinned
from flipguard.evaluate.report.svg import Axis, Interval, forest_row, share_axis, stacked, strip

SHARES = st.floats(0, 1)


@given(value=SHARES, half=st.floats(0, 0.5), limit=st.one_of(st.none(), SHARES))
def test_a_strip_is_well_formed_whatever_the_numbers(value, half, limit):
    nfr = Interval(value, max(0.0, value - half), min(1.0, value + half))
    root = ET.fromstring(strip(nfr, upper=nfr.high, limit=limit, floor=nfr, title="a < b & c"))
    assert root.find("title").text == "a < b & c"


def test_a_strip_without_data_draws_the_limit_alone():
    markup = strip(Interval(None, 0.0, 1.0), upper=1.0, limit=0.05, floor=None, title="nothing")
    assert "limit 5 %" in markup
    assert "circle" not in markup


def test_a_place_beyond_the_axis_is_kept_at_its_end():
    assert Axis(0.0, 0.1).at(5.0) == Axis(0.0, 0.1).at(0.1)


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6))
def test_ticks_are_few_and_within_the_axis(low, span):
    axis = Axis(low, low + span)
    assert len(axis.ticks()) <= 8
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in axis.ticks())


def test_the_axis_of_shares_never_exceeds_all():
    assert share_axis([1.0]).high == 1.0
    assert share_axis([None]).high > 0


def test_a_row_without_data_shows_no_estimate():
    markup = forest_row(Interval(None, 0.0, 1.0), Axis(0, 1), reference=None, tone="neg", title="none")
    assert "circle" not in markup


def test_bars_fill_the_width_and_no_more():
    root = ET.fromstring(stacked([("negative_flip", 0.25), ("tie", 0.0), ("positive_flip", 0.75)], "shares"))
    assert [bar.get("class") for bar in root.iter("rect")] == ["negative_flip", "positive_flip"]


@given(
    points=st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.sampled_from(["tie", "negative_flip"])))
)
def test_a_scatter_is_well_formed_whatever_the_scores(points):
    markup = scatter(points, margin=0.1, labels=("<old>", "&new"), title="scores")
    ET.fromstring(markup)
    assert "nan" not in markup


def test_flips_are_told_apart_by_shape_not_by_colour_alone():
    markup = scatter(
        [(0, 1, "positive_flip"), (1, 0, "negative_flip"), (0, 0, "tie")], margin=0, labels=("", ""), title=""
    )
    shapes = {path.get("class"): path.get("d")[-8:] for path in ET.fromstring(markup).iter("path") if path.get("class")}
    assert len({shapes["p-positive_flip"], shapes["p-negative_flip"], shapes["p-tie"]}) == 3


@pytest.mark.parametrize(("flips", "ties"), [(10, 20_000), (20_000, 10), (9_000, 9_000), (5, 5)])
def test_thinning_keeps_the_number_down_and_the_flips_first(flips, ties):
    points = [(float(i), 0.0, "negative_flip") for i in range(flips)] + [(float(i), 0.0, "tie") for i in range(ties)]
    drawn = thinned(points, 1_000)
    assert len(drawn) <= 1_000
    assert drawn == thinned(points, 1_000)
    kept = sum(kind == "negative_flip" for _, _, kind in drawn)
    assert kept >= min(flips, 400)
    assert all(math.isfinite(x) for x, _, _ in drawn)


def test_scores_that_repeat_are_drawn_once_and_larger():
    points = [(1.0, 2.0, "positive_flip")] * 90 + [(2.0, 1.0, "negative_flip")] * 10
    drawn = ET.fromstring(scatter(points, margin=0, labels=("", ""), title=""))
    titles = [path.find("title").text for path in drawn.iter("path") if path.find("title") is not None]
    assert titles == ["90 × positive flip", "10 × negative flip"]
    assert thinned(points * 100, 50) == points * 100
