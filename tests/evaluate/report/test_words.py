from __future__ import annotations

from time import perf_counter

from hypothesis import given
from hypothesis import strategies as st

from flipguard.evaluate.report.words import marked

SENTENCES = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat", ",", "很", "长", "\n"]), max_size=30)


def words(parts, *, differing):
    return [text for text, differs in parts if differs is differing]


@given(old=st.text(max_size=60), new=st.text(max_size=60))
def test_marks_never_change_a_text(old, new):
    left, right = marked(old, new)
    assert "".join(text for text, _ in left) == old
    assert "".join(text for text, _ in right) == new


@given(old=SENTENCES, new=SENTENCES)
def test_what_is_not_marked_is_in_both_answers_in_the_same_order(old, new):
    left, right = marked(" ".join(old), " ".join(new))
    if any(differs for _, differs in left + right):
        same = "".join(words(left, differing=False)).split(), "".join(words(right, differing=False)).split()
        assert "".join(same[0]) == "".join(same[1])


def test_equal_answers_have_no_marks():
    assert marked("so it is", "so it is") == ([("so it is", False)], [("so it is", False)])


def test_one_exchanged_word_is_the_only_mark():
    left, right = marked("The sky is blue today.", "The sky is grey today.")
    assert words(left, differing=True) == ["blue"]
    assert words(right, differing=True) == ["grey"]


def test_chinese_is_marked_letter_by_letter():
    left, right = marked("这是很长的回答", "这是很短的回答")
    assert words(left, differing=True) == ["长"]
    assert words(right, differing=True) == ["短"]


def test_answers_with_nothing_in_common_stay_unmarked():
    left, _ = marked("one two three four five six seven", "eins zwei drei vier fünf sechs sieben")
    assert words(left, differing=True) == []


def test_a_text_made_to_be_slow_is_not():
    """Every word again and again is the worst case of a longest common subsequence."""
    start = perf_counter()
    marked("a b " * 20_000, "b a " * 20_000)
    assert perf_counter() - start < 5
