"""AlpacaEval, promptfoo and OpenAI Batch: what they call an error is never a grade."""

from pathlib import Path

import orjson
import pytest

from flipguard.errors import DataError
from flipguard.evaluate import importers
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.intake import BadLines, Intake
from flipguard.evaluate.runs import Judged


def read(path, **rules):
    return importers.read(path, Intake(**rules))[1]


def array(write, name, rows):
    return write(name, orjson.dumps(rows))


def preference(value, instruction="I", generator="new", annotator="gpt", **more):
    row = {"instruction": instruction, "output_1": "a", "output_2": "b", "generator_1": "base", "dataset": "koala"}
    return {**row, "generator_2": generator, "annotator": annotator, "preference": value, **more}


@pytest.mark.parametrize(
    ("value", "grades"),
    [(1, (1, 0)), (2.0, (0, 1)), (1.5, (0.5, 0.5)), (0.0, (0.5, 0.5)), (1.25, (0.75, 0.25)), (None, (None, None))],
)
def test_a_preference_is_the_probability_that_an_answer_is_better(write, value, grades):
    both = read(array(write, "annotations.json", [preference(value)]))
    (item,) = both.judgments.values()
    assert (item.old.score, item.new.score) == grades
    assert (item.old.error is None) == (value is not None)
    assert (both.old, both.new, item.categories) == ("base", "new", ("koala",))


@pytest.mark.parametrize("value", [-1, 3, "7", "Tie", True, [1], 0.5])
def test_a_preference_that_is_none_is_named(write, value):
    path = array(write, "a.json", [preference(1), preference(value, "J")])
    with pytest.raises(DataError, match=r"a\.json: row 2: 'preference' is .*; expected a number from 1 to 2"):
        read(path)
    assert len(read(path, bad=BadLines(1)).judgments) == 1


def test_one_file_of_preferences_compares_its_two_models_and_says_it_was_one_order(write):
    rows = [preference(1, "x"), preference(2, "y"), preference(1.5, "z"), preference(None, "w")]
    comparison = compare_files(array(write, "a.json", rows), None, Options()).comparison
    counted = (comparison.n, comparison.negative_flips, comparison.positive_flips, comparison.ties, comparison.invalid)
    assert counted == (3, 1, 1, 1, 1)
    assert any("one order only" in note for note in comparison.provenance["notes"])


def test_two_files_of_preferences_over_one_baseline_compare_their_models(write):
    old = array(write, "a.json", [preference(2, "x", output_2="c"), preference(1, "y", output_2="c")])
    new = array(write, "b.json", [preference(1, "x"), preference(1, "y")])
    assert compare_files(old, new, Options()).comparison.negative_flips == 1
    other = array(write, "c.json", [preference(1, "x", generator_1="another")])
    with pytest.raises(DataError, match=r"'preference over base by gpt', .* by 'preference over another by gpt'"):
        compare_files(old, other, Options())


def test_an_instruction_that_comes_twice_and_a_file_of_several_models_are_refused(write):
    with pytest.raises(DataError, match="was there before, in row 1"):
        read(array(write, "a.json", [preference(1), preference(2)]))
    with pytest.raises(DataError, match="output_2 is of several models: new, other"):
        read(array(write, "b.json", [preference(1), preference(2, "J", "other")]))
    path = array(write, "c.json", [preference(1), preference(2, annotator="claude")])
    with pytest.raises(DataError, match=r"several annotators\. Choose one with --metric: gpt, claude"):
        read(path)
    assert isinstance(read(path, metric="claude"), Judged)
    with pytest.raises(DataError, match=r"no such annotator\. Did you mean 'claude'"):
        read(path, metric="clade")


def result(place=0, passed=True, provider="new", variables=None, **more):
    row = {"vars": variables or {"q": "x"}, "testIdx": place, "promptIdx": 0, "provider": {"id": provider}}
    case = {"testCase": {"assert": [{"type": "equals"}]}, "prompt": {"raw": "P", "label": "P"}}
    grade = {"success": passed, "score": float(passed), "namedScores": {"tone": 0.5}, "failureReason": 0}
    return {**row, **case, **grade, "response": {"output": f"{provider} {passed}"}, "gradingResult": {}, **more}


def output(write, name, rows):
    return write(name, orjson.dumps({"evalId": "e", "results": {"version": 3, "results": rows}}, option=2))


def test_a_document_and_its_lines_hold_the_same_results(write):
    rows = [result(0), result(1, False, variables={"q": "y"})]
    runs = [read(path) for path in (output(write, "o.json", rows), write("o.jsonl", rows), write("1.json", rows[:1]))]
    assert runs[0].entries == runs[1].entries
    assert (runs[0].metric, runs[0].name, len(runs[2].entries)) == ("correct", "new", 1)


def test_tests_are_known_by_variables_and_assertions_not_by_place(write):
    old = [result(0, variables={"q": "x", "r": 1}), result(1, variables={"q": "y"})]
    new = [result(5, False, variables={"q": "y"}), result(9, variables={"r": 1, "q": "x"})]
    new[1]["response"] = {"output": {"json": 1}}
    comparison = compare_files(output(write, "a.json", old), output(write, "b.json", new), Options()).comparison
    assert (comparison.n, comparison.negative_flips) == (2, 1)
    new[0]["testCase"] = {"assert": [{"type": "contains"}]}
    comparison = compare_files(output(write, "a.json", old), output(write, "b.json", new), Options()).comparison
    assert comparison.alignment.only_new == 1


def test_a_test_that_ran_several_times_is_a_prompt_with_repeats(write):
    run = read(output(write, "a.json", [result(7), result(2, False)]))
    assert sorted((key[1], entry.answer.score) for key, entry in run.entries.items()) == [(0, 0.0), (1, 1.0)]
    with pytest.raises(DataError, match="was there before"):
        read(output(write, "b.json", [result(7), result(7)]))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"failureReason": 2, "error": "timeout"}, "timeout"),
        ({"failureReason": 2}, "the test failed to run"),
        ({"failureReason": 1, "error": "Expected x"}, None),
        ({"failureReason": None, "error": "boom", "gradingResult": None}, "boom"),
        ({"failureReason": None, "error": "Expected x", "gradingResult": {"pass": False}}, None),
        ({"gradingResult": {"componentResults": [{"metadata": {"graderError": True}}, 1]}}, "the grader failed"),
        ({"success": None}, "not graded by success"),
    ],
)
def test_an_error_is_no_failure_and_a_failed_assertion_no_error(write, change, error):
    run = read(output(write, "a.json", [result(0), result(1, False, variables={"q": "y"}, **change)]))
    entry = list(run.entries.values())[1]
    assert entry.answer.error == error
    assert entry.answer.score == (0.0 if error is None else None)


def test_several_providers_or_prompts_are_named_by_part(write):
    rows = [result(0, provider="old"), result(0, False, provider="new")]
    path = output(write, "o.json", rows)
    with pytest.raises(DataError, match=r"holds several: old, new\. Name .*'o\.json#old'"):
        read(path)
    old, new = (Path(f"{path}#{name}") for name in ("old", "new"))
    assert compare_files(old, new, Options()).comparison.negative_flips == 1
    prompts = [result(0), {**result(0), "promptIdx": 1, "prompt": {"label": "short"}}]
    path = output(write, "p.json", prompts)
    with pytest.raises(DataError, match=r"new\|0, new\|short"):
        read(path)
    assert read(Path(f"{path}#new|short")).name == "new|short"
    with pytest.raises(DataError, match=r"no result of 'nwe'\. Did you mean 'new'"):
        read(Path(f"{path}#nwe"))


def test_scores_of_promptfoo_are_chosen_by_name(write):
    path = output(write, "o.json", [result(0)])
    assert read(path, metric="score").graded == {"": "score"}
    assert [entry.answer.score for entry in read(path, metric="tone").entries.values()] == [0.5]
    with pytest.raises(DataError, match=r"no result has a grade by 'tune'\. Did you mean 'tone'"):
        read(path, metric="tune")


def batch(name, content, **more):
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    body = {"status_code": 200, "body": {"choices": [choice]}}
    return {"id": "batch_req_1", "custom_id": name, "response": body, "error": None, **more}


def test_grades_of_a_batch_are_joined_by_custom_id_and_failures_are_not_graded(write):
    cut = batch("e", '{"score": 1')
    cut["response"]["body"]["choices"][0]["finish_reason"] = "length"
    response = {"output": [{"content": [{"type": "output_text", "text": '{"score": 3}'}]}], "status": "completed"}
    rows = [
        batch("a", '{"score": 7, "reason": "x"}'),
        batch("b", None),
        batch("c", "no JSON"),
        batch("d", "", response=None, error={"message": "expired"}),
        cut,
        batch("f", "", response={"status_code": 500, "body": {}}),
        batch("g", "", response={"status_code": 200, "body": response}),
        batch("h", '{"other": 1}'),
        batch("i", '```json\n{"score": 4}\n```\n'),
        batch("j", 'Two:\n```json\n{"score": 4}\n```\n```json\n{"score": 5}\n```'),
    ]
    run = read(write("o.jsonl", rows))
    told = {key[0]: entry.answer.error or entry.answer.score for key, entry in run.entries.items()}
    assert told == {
        "a": 7.0,
        "b": "the answer is not JSON",
        "c": "the answer is not JSON",
        "d": "expired",
        "e": "the answer was cut off",
        "f": "the request failed with status 500",
        "g": 3.0,
        "h": "the answer holds no score",
        "i": 4.0,
        "j": "the answer is not JSON",
    }
    assert (run.metric, run.graded) == ("score", {"": "score"})


def test_a_batch_of_answers_without_grades_says_what_to_do(write):
    with pytest.raises(DataError, match="flipguard judge"):
        read(write("o.jsonl", [batch("a", "Paris")]))
    with pytest.raises(DataError, match=r"choose the grade with --metric\. Choose one of: tone, facts"):
        read(write("o.jsonl", [batch("a", '{"tone": 1, "facts": 0}')]))
    assert read(write("o.jsonl", [batch("a", '{"tone": 1, "facts": 0}')]), metric="tone").metric == "correct"


def test_a_part_that_the_format_does_not_know_is_refused(write):
    path = write("s.jsonl", [{"id": 1, "score": 1}])
    with pytest.raises(
        DataError, match=r"no row has the model 'a'\. Its rows name none in 'model'; leave '#' and it away"
    ):
        read(Path(f"{path}#a"))
    path = write("j.jsonl", [{"id": 1, "old": {"score": 1}, "new": {"score": 1}}])
    with pytest.raises(DataError, match="the format judgments knows no part 'a'"):
        read(Path(f"{path}#a"))
