"""Generic score files: every fault is named with file, line and value."""

from pathlib import Path

import orjson
import pytest

from flipguard.errors import DataError
from flipguard.evaluate import importers
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.comparison import Answer
from flipguard.evaluate.intake import BadLines, Intake


def read(path, **rules):
    return importers.read(path, Intake(**rules), "scores")[1]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"score": 1}, "'id' is missing; the row has 'score'"),
        ({"id": None, "score": 1}, "'id' is None; expected text or a whole number"),
        ({"id": True, "score": 1}, "'id' is True"),
        ({"id": 1.0, "score": 1}, r"'id' is 1\.0"),
        ({"id": [1], "score": 1}, r"'id' is \[1\]"),
        ({"id": 7, "score": "garbage"}, "'score' is the text 'garbage'; write a number without quotes, or null"),
        ({"id": 7, "score": "0.7"}, r"'score' is the text '0\.7'"),
        ({"id": 7, "score": [0.5, 1]}, r"'score' is \[0\.5, 1\]; expected one number"),
        ({"id": 7, "score": {"a": 1}}, "expected one number"),
        ({"id": 7, "score": True}, "'score' is True; right or wrong belongs into 'correct'"),
        ({"id": 7, "correct": 1}, "'score' is missing"),
        ({"id": 7}, "'score' is missing; the row has 'id'.*null says that an answer was not graded"),
        ({"id": 7, "score": 1, "category": 3}, "'category' is 3; expected text or a list of texts"),
        ({"id": 7, "score": 1, "category": ["a", None]}, "'category' is"),
        ({"id": 7, "score": 1, "cluster": 3}, "'cluster' is 3; expected text"),
        ({"id": 7, "score": 1, "repeat": -1}, "'repeat' is -1; expected a whole number"),
        ({"id": 7, "score": 1, "repeat": "0"}, "'repeat' is '0'"),
        ({"id": 7, "score": 1, "repeat": True}, "'repeat' is True"),
        ({"id": 7, "score": 1, "prompt": 3}, "'prompt' is 3; expected text or a list of messages"),
        ({"id": 7, "score": 1, "completion": ["x"]}, r"'completion' is \['x'\]; expected text"),
    ],
)
def test_a_faulty_row_is_named_with_file_line_and_value(write, row, told):
    path = write("old.jsonl", [{"id": 0, "score": 0.5}, row])
    with pytest.raises(DataError, match=rf"old\.jsonl:2: .*{told}") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity"])
def test_a_score_that_is_no_number_of_json_says_to_write_null(write, word):
    path = write("old.jsonl", b'{"id": 0, "score": 1}\n{"id": 1, "score": ' + word + b"}\n")
    with pytest.raises(DataError, match=r"old\.jsonl:2: not valid JSON .* write null"):
        read(path)


def test_a_score_too_large_for_a_float_is_refused(write):
    with pytest.raises(DataError, match=r"old\.jsonl:2: "):
        read(write("old.jsonl", b'{"id": 0, "score": 1}\n{"id": 1, "score": 1e999}\n'))


def test_hostile_text_in_a_message_is_escaped(write):
    path = write("old.jsonl", [{"id": 0, "score": "\x1b[31m\nred" + "x" * 500}])
    with pytest.raises(DataError) as caught:
        read(path)
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_null_is_an_answer_that_was_not_graded(write):
    run = read(write("old.jsonl", [{"id": 0, "score": None}, {"id": 1, "score": 2}]))
    assert [entry.answer.score for entry in run.entries.values()] == [None, 2.0]


@pytest.mark.parametrize(
    "row", [{"score": 0.0, "error": "timeout"}, {"error": "timeout"}, {"score": None, "error": "timeout"}]
)
def test_an_answer_with_an_error_is_never_graded(write, row):
    run = read(write("old.jsonl", [{"id": 0, "score": 1}, {"id": 1, **row}]))
    assert run.entries[1, 0].answer == Answer(None, None, "timeout")


def test_a_generation_that_failed_is_never_graded(write):
    run = read(write("old.jsonl", [{"id": 0, "score": 0.0, "completion": "", "finish_reason": "error"}]))
    assert run.entries[0, 0].answer.score is None


@pytest.mark.parametrize("nothing", [None, "", False])
def test_an_empty_error_is_no_error(write, nothing):
    assert read(write("old.jsonl", [{"id": 0, "score": 1, "error": nothing}])).entries[0, 0].answer.error is None


def test_the_decision_counts_before_the_evidence_unless_the_metric_says_otherwise(write):
    path = write("old.jsonl", [{"id": 0, "score": 0.3, "correct": True}])
    assert read(path).metric == "correct"
    assert read(path).entries[0, 0].answer.score == 1.0
    assert read(path, metric="score").entries[0, 0].answer.score == 0.3


@pytest.mark.parametrize("value", [0.3, True, 7])
def test_any_number_or_decision_of_a_row_can_be_compared_by_its_name(write, value):
    run = read(write("old.jsonl", [{"id": 0, "score": 5, "reward": value}]), metric="reward")
    assert (run.metric, run.graded) == ("correct" if value is True else "score", {"": "reward"})
    assert run.entries[0, 0].answer.score == float(value)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"score": 1}, "'reward' is missing; null says"),
        ({"reward": "x"}, "'reward' is 'x'; expected a number"),
        ({"reward": True}, "'reward' is True; expected a number"),
        ({"reward": [1]}, r"'reward' is \[1\]; expected a number"),
    ],
)
def test_a_grade_of_ones_own_name_is_checked_like_any_other(write, row, told):
    path = write("old.jsonl", [{"id": 0, "reward": 0.5}, {"id": 1, **row}])
    with pytest.raises(DataError, match=rf"old\.jsonl:2: {told}"):
        read(path, metric="reward")


@pytest.mark.parametrize("name", ["id", "repeat"])
def test_what_names_an_answer_is_no_grade(write, name):
    with pytest.raises(DataError, match=rf"--metric {name}: no number.*\. Choose one of: score"):
        read(write("old.jsonl", [{"id": 1, "repeat": 0, "score": 0.3}]), metric=name)


def test_a_metric_scores_do_not_have_is_refused_with_those_they_have(write):
    with pytest.raises(DataError, match=r"no number.*Did you mean 'verdict'\? Choose one of: score, verdict\."):
        read(write("old.jsonl", [{"id": 0, "score": 0.3, "verdict": False, "text": "x"}]), metric="verdicts")


def test_the_number_one_and_the_text_one_are_two_ids(write):
    run = read(write("old.jsonl", [{"id": 1, "score": 0}, {"id": "1", "score": 1}]))
    assert len(run.entries) == 2


def test_repeats_are_answers_of_their_own(write):
    run = read(write("old.jsonl", [{"id": 1, "repeat": r, "score": r} for r in range(3)]))
    assert list(run.entries) == [(1, 0), (1, 1), (1, 2)]


def test_a_duplicate_names_both_lines_and_the_way_out(write):
    path = write("old.jsonl", [{"id": "a", "score": 0}, {"id": "b", "score": 0}, {"id": "a", "score": 1}])
    with pytest.raises(DataError, match=r"old\.jsonl:3: id 'a', repeat 0 was there before, in line 1\. .*--duplicates"):
        read(path)
    with pytest.raises(DataError, match="--duplicates"):
        read(path, bad=BadLines(5))


@pytest.mark.parametrize(("rule", "score"), [("first", 0.0), ("last", 2.0)])
def test_duplicates_are_counted_and_the_first_or_last_is_kept(write, rule, score):
    run = read(write("old.jsonl", [{"id": "a", "score": value} for value in range(3)]), duplicates=rule)
    assert run.entries["a", 0].answer.score == score
    assert run.duplicates == 2


def test_tolerated_bad_lines_are_told_and_one_more_ends_the_reading(write):
    path = write("old.jsonl", b'{"id": 1, "score": 1}\n{oops\n{"id": 2, "score": "x"}\n[]\n')
    bad = BadLines(3)
    assert list(read(path, bad=bad).entries) == [(1, 0)]
    assert [line.split(": ")[0].rsplit(":", 1)[1] for line in bad.told] == ["2", "3", "4"]
    with pytest.raises(DataError, match=r"old\.jsonl:4: .*More than the 2 of --skip-bad"):
        read(path, bad=BadLines(2))


def test_nothing_left_to_read_is_an_error(write):
    with pytest.raises(DataError, match="holds no usable row"):
        read(write("old.jsonl", b'{"id": 1, "score": "x"}\n'), bad=BadLines(1))


def test_messages_become_one_text_and_categories_do_not_repeat(write):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [{"type": "text"}]}]
    row = {"id": 1, "score": 1, "prompt": turns, "category": ["a", "b", "a"], "cluster": "c", "extra": [1]}
    entry = read(write("old.jsonl", [row])).entries[1, 0]
    assert entry.prompt == 'user: Hi\n\nassistant: [{"type":"text"}]'
    assert entry.categories == ("a", "b")
    assert entry.cluster == "c"


def test_a_run_is_named_by_its_model_or_else_its_file(write):
    assert read(write("old.jsonl.gz", [{"id": 1, "score": 1}])).name == "old"
    assert read(write("old.jsonl", [{"id": 1, "score": 1, "model": "phi-3"}])).name == "phi-3"


def test_several_models_in_one_file_are_named_by_part(write):
    rows = [{"id": i, "model": model, "correct": model == "a" or i > 0} for i in range(3) for model in ("a", "lab/b")]
    for path in (write("s.jsonl", rows), write("s.json", orjson.dumps(rows))):
        with pytest.raises(
            DataError, match=r"several models: a, lab/b\. Name the old .*: s\.jsonl?#a s\.jsonl?#lab/b\."
        ):
            read(path)
        old, new = (Path(f"{path}#{name}") for name in ("a", "lab/b"))
        comparison = compare_files(old, new, Options()).comparison
        assert (comparison.old, comparison.new, comparison.n, comparison.negative_flips) == ("a", "lab/b", 3, 1)
        with pytest.raises(DataError, match=r"no row has the model 'lab/bb'\. Did you mean 'lab/b'"):
            read(Path(f"{path}#lab/bb"))


def test_rows_without_a_model_among_others_are_not_guessed(write):
    with pytest.raises(DataError, match=r"several models: a, \(none\)"):
        read(write("s.jsonl", [{"id": 1, "model": "a", "score": 1}, {"id": 2, "score": 1}]))


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(write):
    path = write("old.jsonl", b'\xef\xbb\xbf{"id": 1, "score": 1}\r\n\r\n{"id": 2, "score": 1}\r\n')
    assert len(importers.read(path, Intake())[1].entries) == 2
