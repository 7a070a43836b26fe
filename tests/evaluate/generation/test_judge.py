from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from flipguard.errors import DataError, FlipGuardError, JudgeError
from flipguard.evaluate.judge import JudgeOptions, judge
from flipguard.evaluate.judges.exact_match import exact_match

SCORERS = """
import math
calls = []

def length(prompts, completions, **columns):
    calls.append((prompts, completions, columns))
    return [float(len(c)) for c in completions]

def few(prompts, completions, **columns):
    return [1.0]

def words(prompts, completions, **columns):
    return ["good"] * len(prompts)

def truths(prompts, completions, **columns):
    return [True] * len(prompts)

def nothing(prompts, completions, **columns):
    return None

def ungraded(prompts, completions, **columns):
    return [None if c == "b" else 1 for c in completions]

def endless(prompts, completions, **columns):
    return [math.nan if c == "b" else math.inf for c in completions]

def failing(prompts, completions, **columns):
    return inner(completions)

def inner(completions):
    return [1 / (c != "b") for c in completions]

def narrow(prompts, completions):
    return [1.0] * len(prompts)

def contents(prompts, completions, **columns):
    return [float(len(c[0]["content"])) for c in completions]

limit = 3
"""


@pytest.fixture
def scorers(tmp_path, monkeypatch):
    (tmp_path / "my_scorers.py").write_text(SCORERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_scorers", raising=False)
    yield lambda: sys.modules["my_scorers"].calls
    sys.modules.pop("my_scorers", None)


def answer(identifier, completion, **more):
    row = {"id": identifier, "prompt": f"ask {identifier}", "completion": completion, "model": "m"}
    return {**row, "finish_reason": "stop", "repeat": 0, **more}


@pytest.fixture
def judged(tmp_path, write_rows, read_rows):
    def run(old, new, name="exact_match", **options):
        paths = {"old": write_rows(tmp_path / "old.jsonl", old), "new": write_rows(tmp_path / "new.jsonl", new)}
        summary = judge(JudgeOptions(**{"judge": name, "out": tmp_path / "judgments.jsonl", **paths, **options}))
        return summary, read_rows(summary.out)

    return run


def test_right_and_wrong_are_told_by_the_reference(judged):
    old = [answer("a", "4", reference="4", category="sums", cluster="c1", source="book")]
    summary, (row,) = judged(old, [answer("a", "5", reference="4", model="n")])
    assert row == {
        "id": "a",
        "prompt": "ask a",
        "reference": "4",
        "category": "sums",
        "cluster": "c1",
        "source": "book",
        "judge": "exact_match",
        "repeat": 0,
        "old": {"completion": "4", "model": "m", "finish_reason": "stop", "score": 1.0, "correct": True},
        "new": {"completion": "5", "model": "n", "finish_reason": "stop", "score": 0.0, "correct": False},
    }
    assert (summary.rows, summary.matched, summary.invalid) == (1, 1, 0)


@pytest.mark.parametrize(
    ("completion", "reference", "right"),
    [
        (" 4\n", "4", True),
        ("New\u00a0 York", "New York", True),
        ("cafe\u0301", "caf\u00e9", True),
        ("Paris", "paris", False),
        ("Paris.", "Paris", False),
        ("", "", True),
    ],
)
def test_white_space_and_unicode_forms_do_not_matter_case_and_punctuation_do(completion, reference, right):
    assert exact_match(["p"], [completion], reference=[reference]) == [float(right)]


def test_a_row_without_reference_is_invalid_not_wrong(judged):
    summary, rows = judged([answer("a", "4", reference="4"), answer("b", "4")], [answer("a", "4", reference="4")] * 1)
    assert rows[1]["old"]["error"] == "no reference"
    assert rows[1]["old"]["score"] is None
    assert rows[1]["old"]["correct"] is None
    assert summary.only_old == 1


def test_a_reference_that_is_not_text_is_refused(judged):
    with pytest.raises(JudgeError, match="reference must be text, found 4"):
        judged([answer("a", "4", reference=4)], [answer("a", "4", reference=4)])


def test_a_scorer_of_ones_own_gets_prompts_completions_and_columns(judged, scorers):
    old = [answer(1, "aa", topic="x", grade=None), answer(2, "b")]
    new = [answer(1, "a", topic="x"), answer(2, "bbb", level=3)]
    summary, rows = judged(old, new, "my_scorers:length")
    assert [(row["old"]["score"], row["new"]["score"]) for row in rows] == [(2.0, 1.0), (1.0, 3.0)]
    assert "correct" not in rows[0]["old"]
    first, second = scorers()
    columns = {"id": [1, 2], "topic": ["x", None], "grade": [None, None], "level": [None, None]}
    assert first == (["ask 1", "ask 2"], ["aa", "b"], columns)
    assert second == (["ask 1", "ask 2"], ["a", "bbb"], {**columns, "topic": ["x", None], "level": [None, 3]})
    assert summary.invalid == 0


@pytest.mark.usefixtures("scorers")
def test_a_conversation_comes_as_trl_hands_it_to_a_reward_function(judged):
    asked = [{"role": "user", "content": "hi"}]
    _, (row,) = judged([answer(1, "four", prompt=asked)], [answer(1, "12", prompt=asked)], "my_scorers:contents")
    assert (row["old"]["score"], row["new"]["score"]) == (4.0, 2.0)
    _, (row,) = judged(
        [answer(1, "4", prompt=asked, reference="4")], [answer(1, "4", prompt=asked, reference="4")], overwrite=True
    )
    assert row["old"]["correct"]


@pytest.mark.usefixtures("scorers")
def test_pairs_follow_the_old_file_and_repeats_are_kept_apart(judged):
    old = [answer("b", "x", repeat=1), answer("b", "xx", repeat=0), answer("a", "x")]
    new = [answer("a", "y"), answer("z", "y"), answer("b", "yyy", repeat=1)]
    summary, rows = judged(old, new, "my_scorers:length", batch_size=2)
    assert [(row["id"], row["repeat"]) for row in rows] == [("b", 1), ("b", 0), ("a", 0), ("z", 0)]
    assert rows[0]["new"]["score"] == 3.0
    assert rows[1]["new"] is None
    assert rows[3]["old"] is None
    assert rows[3]["prompt"] == "ask z"
    assert (summary.matched, summary.only_old, summary.only_new, summary.invalid) == (2, 1, 1, 0)


def test_answers_to_different_questions_are_not_compared(judged, scorers):
    old = [answer("a", "x", prompt="before"), answer("b", "x", reference="1"), answer("c", "x")]
    new = [answer("a", "y", prompt="after"), answer("b", "y", reference="2"), answer("c", "y")]
    summary, rows = judged(old, new, "my_scorers:length")
    assert rows[0]["prompt"] == "before"
    assert rows[0]["new"]["prompt"] == "after"
    assert rows[0]["old"]["error"] == rows[0]["new"]["error"] == "prompt changed"
    assert rows[0]["old"]["score"] is None
    assert (rows[1]["reference"], rows[1]["new"]["reference"]) == ("1", "2")
    assert rows[1]["new"]["error"] == "reference changed"
    assert "prompt" not in rows[2]["new"]
    assert (summary.changed_prompts, summary.invalid) == (2, 2)
    assert [len(prompts) for prompts, _, _ in scorers()] == [1, 1]


@pytest.mark.usefixtures("scorers")
def test_an_answer_that_failed_never_reaches_the_scorer(judged):
    failed = answer("a", "", finish_reason="error", error="timeout")
    summary, (row,) = judged([failed], [answer("a", "y")], "my_scorers:length")
    assert row["old"]["score"] is None
    assert row["old"]["error"] == "no answer: timeout"
    assert "error" not in row
    assert row["new"]["score"] == 1.0
    assert summary.invalid == 1


@pytest.mark.parametrize(
    ("name", "error"),
    [("ungraded", "the scorer returned None"), ("endless", "the scorer returned nan")],
)
@pytest.mark.usefixtures("scorers")
def test_what_is_not_a_number_is_invalid_with_its_reason(judged, name, error):
    summary, (row,) = judged([answer("a", "b")], [answer("a", "c")], f"my_scorers:{name}")
    assert (row["old"]["score"], row["old"]["error"]) == (None, error)
    assert summary.invalid == 1


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("few", "returned 1 values for the 2 completions of batch 0, old side"),
        ("words", "returned 'good' (str) for id 'a' in batch 0, old side"),
        ("truths", "returned True (bool) for id 'a' in batch 0, old side"),
        ("nothing", "returned a NoneType for batch 0, old side, not a list"),
    ],
)
@pytest.mark.usefixtures("scorers")
def test_a_scorer_that_breaks_its_promise_is_named_with_batch_and_value(judged, name, named):
    both = [answer("a", "x"), answer("b", "x")]
    with pytest.raises(JudgeError) as caught:
        judged(both, both, f"my_scorers:{name}")
    assert f"my_scorers:{name}: {named}" in str(caught.value)


@pytest.mark.usefixtures("scorers")
def test_a_scorer_that_raises_is_told_with_its_line_and_what_was_done_is_kept(judged, tmp_path):
    rows = [answer(name, name) for name in "acb"]
    with pytest.raises(JudgeError) as caught:
        judged(rows, rows, "my_scorers:failing", batch_size=1)
    line = SCORERS.splitlines().index('    return [1 / (c != "b") for c in completions]') + 1
    assert f"batch 2, old side: ZeroDivisionError: division by zero ({tmp_path}/my_scorers.py:{line})" in str(
        caught.value
    )
    assert (tmp_path / "judgments.jsonl.partial").read_bytes().count(b"\n") == 2


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("exactmatch", "'exactmatch' is unknown. Did you mean 'exact_match'"),
        ("my_scorer:length", "no module 'my_scorer'. Not installed; in the current folder: Did you mean 'my_scorers'"),
        ("no.such:length", "no module 'no'"),
        ("my_scorers:lenght", "has no 'lenght'. Did you mean 'length'"),
        ("my_scorers:limit", "'limit' in"),
        ("my_scorers:", "expected package.module:function"),
        ("my_scorers:narrow", "Write def narrow(prompts, completions, **columns)"),
    ],
)
@pytest.mark.usefixtures("scorers")
def test_a_judge_that_cannot_be_had_says_what_is_there_instead(judged, name, named):
    with pytest.raises(JudgeError) as caught:
        judged([answer("a", "x")], [answer("a", "x")], name)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("source", "named"), [("1 / 0", "ZeroDivisionError"), ("import nowhere", "nowhere")])
def test_a_judge_that_fails_while_imported_is_told_with_its_line(judged, tmp_path, monkeypatch, source, named):
    (tmp_path / "broken_scorer.py").write_text(f"x = 1\n{source}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JudgeError, match=rf"importing it failed: .*{named}.*broken_scorer.py:2"):
        judged([answer("a", "x")], [answer("a", "x")], "broken_scorer:f")


@pytest.mark.usefixtures("scorers")
def test_the_current_folder_is_searched_only_while_judging(judged):
    before = list(sys.path)
    judged([answer("a", "x")], [answer("a", "x")], "my_scorers:length")
    assert sys.path == before


@pytest.mark.usefixtures("scorers")
def test_an_edited_scorer_does_not_continue_the_file(judged, tmp_path):
    rows = [answer("a", "x")]
    judged(rows, rows, "my_scorers:length")
    assert judged(rows, rows, "my_scorers:length")[0].already
    with (tmp_path / "my_scorers.py").open("a") as file:
        file.write("# edited\n")
    with pytest.raises(DataError, match="judge has other content"):
        judged(rows, rows, "my_scorers:length")


def test_other_answers_do_not_continue_the_file(judged):
    rows = [answer("a", "x", reference="x")]
    judged(rows, rows)
    with pytest.raises(DataError, match="new has other content"):
        judged(rows, [answer("a", "y", reference="x")])


def test_an_id_that_comes_twice_is_refused_with_both_places(judged):
    with pytest.raises(DataError, match=r"old.jsonl:2: id 'a', repeat 0 already stands at .*old.jsonl:1"):
        judged([answer("a", "x"), answer("a", "y")], [answer("a", "x")])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"completion": None}, "has no completion text, found None"),
        ({"finish_reason": "done"}, "finish_reason 'done'. Choose one of: stop, length, error"),
        ({"repeat": "0"}, "repeat '0' is not a whole number"),
        ({"repeat": -1}, "repeat -1 is not"),
    ],
)
def test_a_bad_generation_row_is_named_with_its_file_and_line(judged, change, named):
    with pytest.raises(DataError) as caught:
        judged([answer("a", "x")], [answer("a", "x"), {**answer("b", "x"), **change}])
    assert named in str(caught.value)
    assert "new.jsonl:2" in str(caught.value)


def test_no_input_is_ever_overwritten(judged, tmp_path):
    for side in ("old", "new"):
        with pytest.raises(FlipGuardError, match=f"is the file of --{side}"):
            judged([answer("a", "x")], [answer("a", "x")], out=tmp_path / f"{side}.jsonl", overwrite=True)


def test_a_batch_holds_at_least_one_pair(judged):
    with pytest.raises(FlipGuardError, match="--batch-size: 0"):
        judged([answer("a", "x")], [answer("a", "x")], batch_size=0)


@pytest.mark.usefixtures("scorers")
def test_hostile_completions_are_graded_and_kept(judged):
    hostile = ["\x00\x1b[31m", "\u202e", "x" * 1_000_000, "</script>"]
    rows = [answer(number, text) for number, text in enumerate(hostile)]
    _, judgments = judged(rows, rows, "my_scorers:length")
    assert [row["old"]["completion"] for row in judgments] == hostile
    assert [row["old"]["score"] for row in judgments] == [6.0, 1.0, 1_000_000.0, 9.0]


SLOW = (
    "import time\ndef slow(prompts, completions, **columns):\n    time.sleep(0.03)\n    return [1.0] * len(prompts)\n"
)
SCRIPT = """
from pathlib import Path
from flipguard.evaluate.judge import JudgeOptions, judge
import sys
print(judge(JudgeOptions(judge="slow_scorer:slow", old=Path("old"), new=Path("new"), out=Path(sys.argv[1]),
                         batch_size=2)))
"""


@pytest.mark.slow
def test_a_process_killed_in_the_middle_goes_on_to_the_same_bytes(tmp_path, write_rows):
    (tmp_path / "slow_scorer.py").write_text(SLOW)
    for side in ("old", "new"):
        write_rows(tmp_path / side, [answer(number, side) for number in range(60)])

    def command(target):
        return [sys.executable, "-W", "error", "-c", SCRIPT, target]

    partial = tmp_path / "killed.partial"
    for size in (1, 2000):
        with subprocess.Popen(command("killed"), cwd=tmp_path, env=os.environ, stdout=subprocess.DEVNULL) as process:
            while not (partial.exists() and partial.stat().st_size >= size):
                assert process.poll() is None
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / "killed").exists()
    done = subprocess.run(command("killed"), cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "resumed=0" not in done.stdout
    subprocess.run(command("unbroken"), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "unbroken").read_bytes()
