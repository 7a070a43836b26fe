"""Inspect logs: every kind of value, both kinds of file, and what stands in the way of a grade."""

import json
import sys
import zipfile
from pathlib import Path

import pytest

from flipguard.errors import DataError
from flipguard.evaluate import archive, importers
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.intake import BadLines, Intake


def sample(number=1, value="C", epoch=1, **more):
    row = {"id": number, "epoch": epoch, "input": f"Q{number}", "target": "t"}
    row["output"] = {"choices": [{"message": {"role": "assistant", "content": f"A{number}"}, "stop_reason": "stop"}]}
    return {**row, "scores": {"match": {"value": value}}, **more}


def log(samples, status="success", **more):
    spec = {"task": "lab/task", "model": "org/model", "dataset": {}, "config": {}}
    return {"version": 2, "status": status, "eval": {**spec, **more}, "samples": samples}


@pytest.fixture
def save(tmp_path):
    """Write a log as .json, or as .eval with its members packed one way or another."""

    def to_file(document, name="a.json", method=zipfile.ZIP_DEFLATED, writer=zipfile):
        path = tmp_path / name
        if name.endswith(".json"):
            path.write_text(json.dumps(document, indent=2))
            return path
        with writer.ZipFile(path, "w", method) as target:
            for at, row in enumerate(document["samples"]):
                target.writestr(f"samples/{at}_epoch_1.json", json.dumps(row))
            header = {key: value for key, value in document.items() if key != "samples"}
            target.writestr("header.json" if "status" in header else "_journal/start.json", json.dumps(header))
        return path

    return to_file


def read(path, **rules):
    name, run = importers.read(path, Intake(**rules))
    assert name == "inspect_ai"
    return run


def scores(run):
    return [entry.answer.score for entry in run.entries.values()]


@pytest.mark.parametrize(
    ("value", "score"),
    [
        ("C", 1.0),
        ("I", 0.0),
        ("P", 0.5),
        ("N", 0.0),
        ("yes", 1.0),
        ("0.25", 0.25),
        (True, 1.0),
        (False, 0.0),
        (3, 3.0),
        (0.7, 0.7),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        (None, None),
    ],
)
def test_every_value_of_a_score_is_a_number_or_not_graded(save, value, score):
    run = read(save(log([sample(1, value), sample(2, 2.5)])))
    assert scores(run) == [score, 2.5]
    assert (run.entries[1, 0].answer.error is None) == (score is not None)


@pytest.mark.parametrize("value", ["garbage", "", "7 of 10"])
def test_a_value_that_is_no_grade_is_named_and_can_be_skipped(save, value):
    path = save(log([sample(1), sample("b", value)]))
    with pytest.raises(DataError, match=r"a\.json: sample 'b', epoch 1: 'match' gave .*; expected C, I, P, N"):
        read(path)
    assert scores(read(path, bad=BadLines(1))) == [1.0]


def test_right_and_wrong_are_decisions_and_partly_right_makes_a_score(save):
    assert read(save(log([sample(1, "C"), sample(2, "I")]))).metric == "correct"
    assert read(save(log([sample(1, "C"), sample(2, "P")]))).metric == "score"
    both = [save(log([sample(1, value, output=None)]), f"{value}.json") for value in ("C", "P")]
    assert compare_files(*both, Options()).comparison.negative_flips == 1


def test_epochs_are_repeats_and_ids_keep_their_type(save):
    run = read(save(log([sample(1, epoch=2), sample(1, "I"), sample("1", "I")])))
    assert {key: entry.answer.score for key, entry in run.entries.items()} == {(1, 1): 1.0, (1, 0): 0.0, ("1", 0): 0.0}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id": None}, "'id' is None"),
        ({"id": 1.5}, r"'id' is 1\.5"),
        ({"epoch": 0}, "'epoch' is 0"),
        ({"epoch": "1"}, "'epoch' is '1'"),
        ({"id": 1}, "id 1, repeat 0 was there before"),
    ],
)
def test_a_faulty_sample_is_named(save, change, told):
    with pytest.raises(DataError, match=told):
        read(save(log([sample(1), {**sample(2), **change}])))


def test_several_scorers_need_a_choice_and_one_with_several_values_too(save):
    score = {"match": {"value": "C"}, "judge": {"value": {"tone": 0.5, "facts": 1}}, "list": {"value": [1, 2]}}
    path = save(log([sample(1, scores=score)]))
    with pytest.raises(
        DataError, match=r"several scorers\. Choose one with --metric: match, judge\.tone, judge\.facts"
    ):
        read(path)
    assert scores(read(path, metric="judge.tone")) == [0.5]
    assert read(path, metric="match").graded == {"": "match"}
    with pytest.raises(DataError, match="--metric list: its value is a list"):
        read(path, metric="list")
    with pytest.raises(DataError, match=r"no such scorer\. Did you mean 'match'"):
        read(path, metric="mtach")
    with pytest.raises(DataError, match="the value of only is a list, not one number"):
        read(save(log([sample(1, scores={"only": {"value": [1]}})])))


def test_an_older_log_has_one_score_without_a_name(save):
    row = sample(1)
    del row["scores"]
    assert scores(read(save(log([{**row, "score": {"value": "C"}}])))) == [1.0]


def test_a_sample_that_failed_is_not_graded_whatever_its_score(save):
    rows = [
        sample(1, error={"message": "timeout", "traceback": "..."}),
        sample(2, error="x"),
        sample(3, invalidation={"reason": "r"}),
        sample(4, scores={}),
        sample(5, limit={"type": "token", "limit": 5}),
        sample(6, scores={}, limit={"type": "token", "limit": 5}),
    ]
    run = read(save(log(rows)))
    errors = [entry.answer.error for entry in run.entries.values()]
    assert errors == ["timeout", "x", "the sample was invalidated", "not scored by match", None, "not scored by match"]
    assert scores(run) == [None, None, None, None, 1.0, None]
    assert run.notes == ("Samples of a.json stopped by a limit: 2.",)


@pytest.mark.parametrize("status", ["cancelled", "error", "started"])
def test_what_a_broken_off_log_never_ran_is_not_graded(save, status):
    spec = {"dataset": {"sample_ids": [1, 2, "x", None]}, "config": {"epochs": 2}}
    run = read(save(log([sample(1), sample(2)], status, **spec)))
    assert len(run.entries) == 6
    assert run.entries["x", 1].answer.error == f"never run: the log is {status}"
    assert run.notes == (f"The log a.json is {status}: 4 samples were never run.",)


@pytest.mark.parametrize("samples", [None, [], {}])
def test_a_log_without_samples_says_so_with_its_status(save, samples):
    with pytest.raises(DataError, match="holds no samples; the status of the log is 'cancelled'"):
        read(save(log(samples, "cancelled")))


def test_a_log_that_was_never_scored_says_how_to(save):
    with pytest.raises(DataError, match=r"none of its 1 samples has a score\. Score it: inspect score"):
        read(save(log([sample(1, scores={})])))


def test_a_log_whose_samples_all_failed_says_why(save):
    rows = [sample(number, scores={}, error={"message": "no network"}) for number in (1, 2)]
    with pytest.raises(DataError, match=r"none of its 2 samples has a score\. The first error: 'no network'\."):
        read(save(log(rows, "error")))


def test_runs_of_two_tasks_are_not_compared_though_their_ids_agree(save):
    paths = [save(log([sample(1)], task=task), f"{name}.json") for name, task in (("a", "x/one"), ("b", "y/two"))]
    with pytest.raises(DataError, match=r"is of the task 'one', .* of 'two'"):
        compare_files(*paths, Options())


def test_a_changed_target_is_an_error(save):
    paths = [save(log([sample(1, target=target)]), f"{name}.json") for name, target in (("a", ["x"]), ("b", ["y"]))]
    with pytest.raises(DataError, match="another right answer than in"):
        compare_files(*paths, Options())
    assert compare_files(*paths, Options(changed_targets="keep")).comparison.n == 1


def test_agents_that_end_alike_after_other_deeds_are_told_apart(save):
    def deeds(call):
        calls = [{"role": "assistant", "content": "", "tool_calls": [{"function": "bash", "arguments": {"cmd": call}}]}]
        return [*calls, {"role": "tool", "content": "ok"}, {"role": "assistant", "content": [{"text": "done"}]}]

    old = save(log([sample(1, "C", messages=deeds("ls"))]), "a.json")
    new = save(log([sample(1, "I", messages=deeds("rm"))]), "b.json")
    assert read(old).entries[1, 0].answer.completion == 'bash({"cmd":"ls"})\n\ndone'
    assert compare_files(old, new, Options()).comparison.negative_flips == 1


def test_attached_texts_are_put_back(save):
    row = sample(1, input=[{"role": "user", "content": "attachment://k"}], attachments={"k": "long question"})
    assert read(save(log([row]))).entries[1, 0].prompt == "user: long question"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_is_read_like_a_document(save, method):
    document = log([sample(1), sample(2, "I")])
    packed, plain = read(save(document, "a.eval", method)), read(save(document))
    assert packed.entries == plain.entries
    assert (packed.name, packed.task) == ("org/model", "task")


def zstandard():
    if sys.version_info >= (3, 14):
        return zipfile
    return pytest.importorskip("backports.zstd.zipfile", reason="backports.zstd is not installed")


def test_an_archive_packed_with_zstandard_is_read(save):
    writer = zstandard()
    path = save(log([sample(1), sample(2, "I")]), "a.eval", writer.ZIP_ZSTANDARD, writer)
    assert scores(read(path)) == [1.0, 0.0]
    whole = path.read_bytes()
    for at in range(30, len(whole), 40):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            assert scores(read(path)) == [1.0, 0.0]
        except DataError as error:
            assert "a.eval" in str(error)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python unpacks Zstandard itself")
def test_zstandard_without_its_package_says_what_to_install(save, monkeypatch):
    writer = zstandard()
    path = save(log([sample(1)]), "a.eval", writer.ZIP_ZSTANDARD, writer)
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    with pytest.raises(DataError, match=r"pip install backports\.zstd"):
        read(path)


def test_the_journal_of_a_run_that_broke_off_serves_as_header(save):
    document = log([sample(1)])
    del document["status"]
    run = read(save(document, "a.eval"))
    assert (run.name, run.notes) == ("org/model", ("The log a.eval is started: 0 samples were never run.",))


@pytest.mark.parametrize(("name", "told"), [("LARGEST_MEMBER", "samples/0_epoch_1.json"), ("LARGEST_WHOLE", "would")])
def test_an_archive_that_would_fill_the_memory_is_refused_before_it_is_unpacked(save, monkeypatch, name, told):
    path = save(log([sample(1, metadata="x" * 2_000_000)]), "a.eval")
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(archive, name, 1_000_000)
    with pytest.raises(DataError, match=rf"{told}.* unpack to 2,000,\d+ bytes, more than 1,000,000"):
        read(path)


def test_an_archive_that_lies_about_its_size_is_damaged(save):
    path = save(log([sample(1, metadata="x" * 100_000)]), "a.eval")
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as target:
        size = target.infolist()[0].file_size.to_bytes(4, "little")
    path.write_bytes(whole.replace(size, (50).to_bytes(4, "little")))
    with pytest.raises(DataError, match="not a whole zip archive"):
        read(path)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: data[:-40], "not a whole zip archive"),
        (lambda data: data[: len(data) // 2], "not a whole zip archive"),
        (lambda data: data.replace(b"header.json", b"beader.json"), "."),
    ],
)
def test_a_damaged_archive_says_so(save, damage, told):
    path = save(log([sample(1)]), "a.eval")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=told):
        read(path)


def test_another_archive_is_not_a_log(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as target:
        target.writestr("sheet.xml", "x")
    with pytest.raises(DataError, match=r"inspect_ai \(it is an archive without header"):
        importers.read(tmp_path / "a.xlsx", Intake())


@pytest.fixture
def logs(save, tmp_path):
    """A folder of logs of two models on two tasks, one of them in both packings, with other files beside."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "eval-set.json").write_text('{"eval_set_id": "x", "tasks": []}')
    (tmp_path / "logs" / "notes.txt").write_text("x")
    for model, good in (("org/old", "C"), ("org/new", "I")):
        for task in ("maths", "chat"):
            document = log(
                [sample(1, good, output=None), sample(2)],
                model=model,
                task=f"lab/{task}",
                created="2025-01-01T00:00:00",
            )
            save(document, f"logs/{model[4:]}_{task}.{'eval' if task == 'chat' else 'json'}")
    return tmp_path / "logs"


def test_a_folder_of_logs_is_one_run_a_model_with_each_task_a_slice(logs):
    with pytest.raises(
        DataError, match=r"logs of several models: org/new, org/old\. Name .*logs#org/new .*logs#org/old"
    ):
        read(logs)
    comparison = compare_files(Path(f"{logs}#org/old"), Path(f"{logs}#org/new"), Options()).comparison
    assert (comparison.old, comparison.new, comparison.n, comparison.negative_flips) == ("org/old", "org/new", 4, 2)
    assert [(part.name, part.n, part.negative_flips) for part in comparison.slices] == [("chat", 2, 1), ("maths", 2, 1)]
    with pytest.raises(DataError, match=r"no log of 'org/nwe'\. Did you mean 'org/new'"):
        read(Path(f"{logs}#org/nwe"))


def test_a_folder_of_one_task_is_read_like_its_log(logs):
    alone = logs.parent / "alone"
    alone.mkdir()
    (logs / "old_chat.eval").rename(alone / "old_chat.eval")
    assert read(alone.parent / "alone") == read(alone / "old_chat.eval")
    deep = logs.parent / "deep"
    deep.mkdir()
    alone.rename(deep / "model")
    assert list(read(deep).entries) == [(1, 0), (2, 0)]


def test_a_task_that_ran_several_times_in_a_folder_needs_a_choice(logs, save):
    again = log([sample(1, "P")], "cancelled", model="org/old", task="lab/maths", created="2025-02-01T00:00:00")
    save(again, "logs/again.json")
    old = Path(f"{logs}#org/old")
    with pytest.raises(
        DataError, match=r"maths ran several times: old_maths\.json \(success\), again\.json \(cancelled"
    ):
        read(old)
    last = read(old, duplicates="last")
    assert last.entries["maths/1", 0].answer.score == 0.5
    assert "Of 2 logs of maths, again.json was taken." in last.notes
    assert read(old, duplicates="first").entries["maths/1", 0].answer.score == 1.0


def test_one_task_with_other_arguments_is_another_task(save, tmp_path):
    (tmp_path / "logs").mkdir()
    for subject in ("law", "art"):
        save(log([sample(1)], task_args={"subject": subject}), f"logs/{subject}.json")
    assert list(read(tmp_path / "logs").entries) == [('task {"subject":"art"}/1', 0), ('task {"subject":"law"}/1', 0)]


def test_each_task_of_a_folder_may_have_its_scorer(save, tmp_path):
    (tmp_path / "logs").mkdir()
    scores = {"match": {"value": "C"}, "judge": {"value": 0.5}}
    for task in ("a", "b"):
        save(log([sample(1, scores=scores)], task=task), f"logs/{task}.json")
    with pytest.raises(DataError, match=r"a\.json: has several scorers.*several tasks are read, write a=GRADE"):
        read(tmp_path / "logs")
    assert read(tmp_path / "logs", metric="judge").graded == {"a": "judge", "b": "judge"}
    assert read(tmp_path / "logs", metric="a=judge b=match").graded == {"a": "judge", "b": "match"}
    with pytest.raises(DataError, match="--metric c=judge: no such task"):
        read(tmp_path / "logs", metric="c=judge")


def test_a_damaged_log_in_a_folder_is_named(logs):
    (logs / "new_chat.eval").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"new_chat\.eval: is not a whole zip archive"):
        read(Path(f"{logs}#org/old"))
    (logs / "new_chat.eval").write_bytes(b"text")
    with pytest.raises(DataError, match=r"new_chat\.eval: "):
        read(Path(f"{logs}#org/old"))


REAL = {
    "2024-11-05T13-31-45-05-00_input-task_8zXjbRzCWrL9GXiXo2vus9.json": (1, 1.0),
    "2024-11-05T13-32-37-05-00_input-task_hxs4q9azL3ySGkjJirypKZ.eval": (1, 1.0),
    "2025-02-11T15-18-04-05-00_popularity_mj7khqpMM4GBCfVQozKgzB.eval": (10, 0.8),
    "2025-05-12T20-28-13-04-00_popularity.json": (3, 2 / 3),
    "2025-05-12T20-28-26-04-00_security-guide.json": (3, 1.0),
    "log_formats.eval": (1, 0.0),
    "log_formats.json": (1, 0.0),
    "log_message_deduplication.eval": (1, 0.0),
    "log_read_sample.eval": (1, 1.0),
    "log_read_sample.json": (1, 1.0),
    "log_streaming.eval": (4, 0.75),
    "mmlu-no-summary-choices.eval": (1, 0.0),
    "mmlu-summary-choices.eval": (1, 0.0),
}
UNGRADED = {
    "2024-08-29T15-11-17+00-00_popularity_5EAmX6wjMFqea6WY7XHzZp.json": "no samples; .* 'success'",
    "2025-02-11T15-17-00-05-00_popularity_dPiJifoWeEQBrfWsAopzWr.eval": "none of its 10 samples has a score",
    "2025-05-12T20-28-13-04-00_no-samples.json": "no samples; .* 'cancelled'",
    "log_tool_call_error.json": "none of its 1 samples has a score",
}


@pytest.mark.parametrize("name", REAL)
def test_real_logs_have_the_accuracy_that_inspect_reports(shared, name):
    run = read(shared / "inspect_ai_logs" / name)
    assert (len(run.entries), sum(scores(run)) / len(run.entries)) == pytest.approx(REAL[name])


@pytest.mark.parametrize("name", UNGRADED)
def test_real_logs_without_grades_say_why(shared, name):
    with pytest.raises(DataError, match=UNGRADED[name]):
        read(shared / "inspect_ai_logs" / name)


def test_every_real_log_is_tested(shared):
    assert {path.name for path in (shared / "inspect_ai_logs").iterdir()} == REAL.keys() | UNGRADED.keys()


def test_a_cancelled_real_log_says_so(shared):
    (note,) = read(shared / "inspect_ai_logs" / "2025-05-12T20-28-13-04-00_popularity.json").notes
    assert "is cancelled" in note
