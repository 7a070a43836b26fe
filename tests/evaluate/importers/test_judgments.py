"""Files that hold both sides: scorers and pairwise judges."""

import pytest

from flipguard.errors import DataError
from flipguard.evaluate import importers
from flipguard.evaluate.intake import Intake

BOTH = [{"order": "old_first", "winner": "old", "reason": "r"}, {"order": "new_first", "winner": "tie"}]


def read(path, **rules):
    return importers.read(path, Intake(**rules), "judgments")[1]


def test_scores_of_both_sides_and_the_models_names_are_read(write):
    row = {"id": 1, "judge": "j", "old": {"score": 1, "model": "a"}, "new": {"score": 0.5, "completion": "x"}}
    both = read(write("j.jsonl", [row]))
    assert (both.old, both.new, both.metric) == ("a", "new", "score")
    assert both.judgments[1, 0].old.score == 1.0
    assert both.judgments[1, 0].new.completion == "x"


def test_right_or_wrong_is_read_from_both_sides(write):
    both = read(write("j.jsonl", [{"id": 1, "old": {"correct": True}, "new": {"correct": False}}]))
    assert both.metric == "correct"


def test_verdicts_are_kept_as_they_are(write):
    both = read(write("j.jsonl", [{"id": 1, "old": {"completion": "a"}, "new": {"completion": "b"}, "verdicts": BOTH}]))
    assert both.metric == "verdicts"
    assert list(both.judgments[1, 0].verdicts) == BOTH


def test_verdicts_count_before_scores_unless_the_metric_says_otherwise(write):
    path = write("j.jsonl", [{"id": 1, "old": {"score": 1}, "new": {"score": 0}, "verdicts": BOTH}])
    assert read(path).metric == "verdicts"
    assert read(path, metric="score").judgments[1, 0].old.score == 1.0


def test_an_error_of_the_judge_leaves_both_sides_ungraded(write):
    rows = [
        {"id": 1, "old": {"score": 1}, "new": {"score": 0}, "error": "server"},
        {"id": 2, "old": {"score": 1}, "new": {"score": 0}, "error": {"code": 500}},
    ]
    both = read(write("j.jsonl", rows))
    assert all(item.old.score is None and item.new.error for item in both.judgments.values())


def test_a_pairwise_judge_that_failed_needs_no_verdicts(write):
    rows = [{"id": 1, "old": {}, "new": {}, "verdicts": BOTH}, {"id": 2, "old": {}, "new": {}, "error": "server"}]
    assert read(write("j.jsonl", rows)).judgments[2, 0].verdicts == ()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"old": 3}, "'old' is 3; expected an object that holds the old model's answer"),
        ({"new": None}, "'new' is None"),
        ({"old": {"score": "x"}}, "in 'old', 'score' is the text 'x'"),
        ({"new": {}}, "in 'new', 'score' is missing"),
    ],
)
def test_a_faulty_side_is_named(write, change, told):
    fine = {"id": 0, "old": {"score": 1}, "new": {"score": 1}}
    with pytest.raises(DataError, match=rf"j\.jsonl:2: {told}"):
        read(write("j.jsonl", [fine, {**fine, "id": 1, **change}]))


@pytest.mark.parametrize(
    ("verdicts", "told"),
    [
        ("old", "'verdicts' is 'old'; expected a list"),
        (None, "'verdicts' is None"),
        ([1], "'verdicts' is"),
        ([{"order": "old_first", "winner": "A"}], "winner 'A'. Choose one of: old, new, tie, invalid"),
        ([{"winner": "old"}], "order None. Choose one of: old_first, new_first"),
        ([{"order": ["old_first"], "winner": "old"}], "order"),
    ],
)
def test_faulty_verdicts_are_named_with_the_choices(write, verdicts, told):
    row = {"id": 1, "old": {}, "new": {}, "verdicts": verdicts}
    with pytest.raises(DataError, match=rf"j\.jsonl:1: .*{told}"):
        read(write("j.jsonl", [row]), metric="verdicts")
