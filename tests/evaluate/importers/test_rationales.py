"""Why a grader graded so: each format's own words, read with the flips."""

import json

import orjson
import pytest

from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.flipfile import flip_rows
from flipguard.evaluate.report import html

PASSED = {"pass": True, "reason": "Assertion passed"}
WHY = "It names <no> cause & gives up."


def mt_bench(write, model, mark, why):
    row = {"question_id": 81, "turn": 1, "model": model, "judge": ["gpt-4", "single-v1"], "score": mark}
    return write(f"{model}.jsonl", [{**row, "judgment": why}])


def inspect(write, model, mark, why):
    score = {"value": {"all": mark, "style": 1}, "explanation": why and "attachment://1"}
    answer = {"choices": [{"message": {"role": "assistant", "content": f"{model} answers at length"}}]}
    sample = {"id": 1, "epoch": 1, "input": "?", "output": answer, "scores": {"graded": score}}
    sample["attachments"] = {"1": why}
    return write(f"{model}.json", orjson.dumps({"status": "success", "eval": {"model": model}, "samples": [sample]}))


def promptfoo(write, model, mark, why):
    parts = [{"pass": mark > 1, "reason": why}, {"pass": True, "reason": None}]
    row = {"vars": {"q": 1}, "success": mark > 1, "provider": model, "response": {"output": model}, "score": mark}
    row["gradingResult"] = {"componentResults": [*parts, PASSED], "reason": "All assertions passed"}
    return write(f"{model}.json", orjson.dumps([row]))


def openai_batch(write, model, mark, why):
    content = json.dumps({"score": mark, "reason": why})
    body = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}
    return write(f"{model}.jsonl", [{"custom_id": "a", "response": {"status_code": 200, "body": body}}])


def alpaca_eval(write, model, mark, why):
    row = {"instruction": "?", "output_1": "a", "output_2": model, "generator_1": "base", "generator_2": model}
    row["preference"] = 1.0 if mark == 1 else 2.0
    told = {"concise_explanation": why, "ordered_models": [{"model": "M", "rank": 1}]}
    said = told if mark > 1 else json.dumps(told) if why == WHY else why
    return write(f"{model}.json", orjson.dumps([{**row, "raw_completion": said}]))


@pytest.mark.parametrize(
    ("save", "metric"),
    [
        (mt_bench, None),
        (inspect, "graded.all"),
        (promptfoo, "score"),
        (openai_batch, None),
        (alpaca_eval, None),
    ],
)
def test_the_words_of_a_grader_stand_with_the_flip(write, save, metric):
    old, new = save(write, "base", 9, "Thorough, and right."), save(write, "tuned", 1, WHY)
    result = compare_files(old, new, Options(metric=metric))
    (flip,) = flip_rows(result)
    assert flip["old"]["reason"].removeprefix("passed: ") == "Thorough, and right."
    assert flip["new"]["reason"].removeprefix("failed: ") == WHY
    page = html.render(result.comparison, result.pairs)
    assert "Thorough, and right.</div>" in page
    assert "It names &lt;no&gt; cause &amp; gives up.</div>" in page


@pytest.mark.parametrize("save", [mt_bench, inspect, promptfoo, openai_batch, alpaca_eval])
@pytest.mark.parametrize("why", [None, "", " \n", 7, ["x"]])
def test_a_grader_without_words_leaves_nothing_to_read(write, save, why):
    metric = {inspect: "graded.all", promptfoo: "score"}.get(save)
    result = compare_files(save(write, "base", 9, why), save(write, "tuned", 1, why), Options(metric=metric))
    (flip,) = flip_rows(result)
    assert {flip[side].get("reason") for side in ("old", "new")} == {None}


def test_an_explanation_that_only_repeats_the_answer_is_left_out(write):
    old, new = inspect(write, "base", 9, "base answers"), inspect(write, "tuned", 1, "wrong")
    (flip,) = flip_rows(compare_files(old, new, Options(metric="graded.all")))
    assert (flip["old"].get("reason"), flip["new"]["reason"]) == (None, "wrong")


def test_one_letter_of_an_annotator_is_no_reason(write):
    old, new = alpaca_eval(write, "base", 2, "m"), alpaca_eval(write, "tuned", 1, "m")
    (flip,) = flip_rows(compare_files(old, new, Options()))
    assert "reason" not in flip["new"]


def test_our_own_judgments_may_give_a_reason_for_each_side(write):
    sides = {"old": {"score": 1, "reason": "Right."}, "new": {"score": 0, "reason": "Wrong."}}
    (flip,) = flip_rows(compare_files(write("j.jsonl", [{"id": 1, **sides}]), None, Options()))
    assert (flip["old"]["reason"], flip["new"]["reason"]) == ("Right.", "Wrong.")


def test_reasons_stay_with_their_answers_whatever_the_order_of_the_files(write):
    def judged(model, marks):
        row = {"turn": 1, "model": model, "judge": ["gpt-4", "single-v1"]}
        rows = [{**row, "question_id": q, "score": mark, "judgment": f"{model} {q}"} for q, mark in marks.items()]
        return write(f"{model}.jsonl", rows)

    result = compare_files(judged("old", {1: 9, 2: 8, 3: 9}), judged("new", {3: 1, 1: 2}), Options())
    told = {flip["id"]: (flip["old"]["reason"], flip["new"]["reason"]) for flip in flip_rows(result)}
    assert told == {"3 turn 1": ("old 3", "new 3"), "1 turn 1": ("old 1", "new 1")}
