"""Files that hold both sides: scorers and pairwise judges."""

import pytest

from flipguard.errors import DataError
from flipguard.evaluate import importers
from flipguard.evaluate.compare import Options, compare_files
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


def test_an_id_without_partner_is_counted_on_its_side_and_is_no_error(write):
    side = {"score": 1}
    rows = [{"id": 1, "old": side, "new": side}, {"id": 2, "old": side, "new": None}]
    rows += [{"id": number, "old": None, "new": side} for number in (3, 4)]
    comparison = compare_files(write("j.jsonl", rows), None, Options()).comparison
    account = comparison.alignment
    assert (account.old, account.new, account.matched, account.only_old, account.only_new) == (2, 3, 1, 1, 2)
    assert (comparison.n, comparison.invalid, comparison.verdict) == (1, 0, "invalid")
    assert comparison.provenance["unmatched_examples"] == {"old": ["2"], "new": ["3", "4"]}


def test_a_file_whose_first_rows_lack_a_partner_is_recognised_and_its_models_are_named(write):
    rows = [{"id": 1, "old": None, "new": {"score": 1, "model": "b"}}] * 2
    rows += [{"id": 3, "old": {"score": 1, "model": "a"}, "new": None}]
    name, both = importers.read(write("j.jsonl", rows), Intake(duplicates="first"))
    assert (name, both.old, both.new, both.duplicates) == ("judgments", "a", "b", 1)


@pytest.mark.parametrize("key", ["prompt", "reference"])
def test_a_changed_question_is_counted_and_neither_side_graded(write, key):
    error = f"{key} changed"
    rows = [
        {"id": 1, key: "p", "old": {"score": None, "error": error}, "new": {"score": None, "error": error, key: "q"}},
        {"id": 2, key: "p", "old": {"score": 1}, "new": {"score": 1}},
    ]
    comparison = compare_files(write("j.jsonl", rows), None, Options()).comparison
    assert (comparison.alignment.changed_prompts, comparison.invalid, comparison.n) == (1, 1, 1)


def several_judges(write):
    grades = {"exact": {"score": 1}, "llm": {"score": 0}}
    return write(
        "j.jsonl",
        [{"id": i, "judge": judge, "old": old, "new": {"score": 1}} for i in (1, 2) for judge, old in grades.items()],
    )


def test_several_judges_in_one_file_are_named_and_not_taken_for_duplicates(write):
    with pytest.raises(DataError, match=r"several judges: exact, llm\. Choose one with --metric JUDGE"):
        read(several_judges(write))


@pytest.mark.parametrize(("metric", "score"), [("exact", 1.0), ("llm", 0.0), ("llm=score", 0.0)])
def test_one_of_several_judges_is_chosen_by_name(write, metric, score):
    both = read(several_judges(write), metric=metric)
    assert [item.old.score for item in both.judgments.values()] == [score, score]


@pytest.mark.parametrize(
    ("metric", "told"), [("lml", "Did you mean 'llm'"), ("llm=scroe", "unknown key 'scroe'. Did you mean 'score'")]
)
def test_a_judge_or_key_that_is_not_there_is_refused_with_the_choices(write, metric, told):
    with pytest.raises(DataError, match=told):
        read(several_judges(write), metric=metric)


def test_a_pairwise_judge_that_failed_needs_no_verdicts(write):
    rows = [{"id": 1, "old": {}, "new": {}, "verdicts": BOTH}, {"id": 2, "old": {}, "new": {}, "error": "server"}]
    assert read(write("j.jsonl", rows)).judgments[2, 0].verdicts == ()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"old": 3}, "'old' is 3; expected an object that holds the old model's answer"),
        ({"new": [1]}, r"'new' is \[1\]; expected an object .* or null"),
        ({"old": None, "new": None}, "'old' and 'new' are both null"),
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
