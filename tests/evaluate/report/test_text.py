from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipguard.evaluate.report.text import anchor, clean, fit, one_line, width

ANY_TEXT = st.text(st.characters(), max_size=80)


@given(text=ANY_TEXT)
def test_clean_text_has_no_character_that_acts(text):
    shown = clean(text)
    acting = [c for c in shown if unicodedata.category(c) in {"Cc", "Cs"} and c not in "\n\t"]
    assert acting == []
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", shown)
    shown.encode("utf-8")


@given(text=ANY_TEXT)
def test_cleaning_twice_changes_nothing_more(text):
    assert clean(clean(text)) == clean(text)


@pytest.mark.parametrize("text", ["多语言", "مرحبا بالعالم", "naïve café", "👩‍🔬 ok", "a\tb\nc"])
def test_ordinary_text_of_any_language_stays_as_it_is(text):
    assert clean(text) == text


@given(text=ANY_TEXT, columns=st.integers(1, 40))
def test_a_fitted_text_takes_exactly_its_columns(text, columns):
    line = fit(text, columns)
    assert width(line) == columns
    assert "\n" not in line


@given(text=ANY_TEXT, limit=st.integers(1, 40))
def test_one_line_is_one_line_within_its_limit(text, limit):
    line = one_line(text, limit)
    assert len(line) <= max(limit, 1)
    assert "\n" not in line


@given(name=st.one_of(ANY_TEXT, st.integers()))
def test_an_anchor_holds_nothing_that_could_end_an_attribute(name):
    assert re.fullmatch(r"flip-[A-Za-z0-9_-]+", anchor(name, 0))


def test_ids_that_look_alike_after_cleaning_get_different_anchors():
    assert len({anchor(name, 0) for name in ("a b", "a-b", "a/b", "a.b", "数", "学", "")}) == 7
