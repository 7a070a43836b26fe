"""Samples of lm-evaluation-harness: joined by document, graded by one named metric, nothing picked in silence."""

import gzip
import hashlib

import orjson
import pytest

from flipguard.errors import DataError
from flipguard.evaluate import importers
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.intake import Intake


def sample(number, *, hashed=None, target="t", **grades):
    return {
        "doc_id": number,
        "doc": {"question": str(number)},
        "arguments": {"gen_args_0": {"arg_0": f"Q{number}"}},
        "resps": [[f"answer {number} {grades}"]],
        "filter": "none",
        "metrics": list(grades),
        "doc_hash": hashed or f"hash{number}",
        "target_hash": target,
        **grades,
    }


def read(path, **rules):
    name, run = importers.read(path, Intake(**rules))
    assert name == "lm_eval"
    return run


def scores(run):
    return [entry.answer.score for entry in run.entries.values()]


def test_answers_are_joined_by_document_whatever_their_order_and_number(write):
    old = write("a.jsonl", [sample(i, acc=1.0) for i in range(4)])
    new = write("b.jsonl", [sample(9 - i, hashed=f"hash{i}", acc=float(i > 0)) for i in reversed(range(4))])
    comparison = compare_files(old, new, Options()).comparison
    assert (comparison.n, comparison.negative_flips, comparison.alignment.matched) == (4, 1, 4)
    assert comparison.provenance["inputs"][0]["graded"] == {"": "acc"}


def test_a_changed_target_is_an_error_or_left_out_and_said(write):
    old = write("a.jsonl", [sample(i, acc=1) for i in range(4)])
    new = write("b.jsonl", [sample(i, acc=0, target="t" if i else "other") for i in range(4)])
    with pytest.raises(DataError, match=r"b\.jsonl: another right answer than in .*a\.jsonl for id 'hash0'\."):
        compare_files(old, new, Options())
    comparison = compare_files(old, new, Options(changed_targets="drop")).comparison
    assert (comparison.n, comparison.negative_flips, comparison.invalid, comparison.verdict) == (3, 3, 0, "none")
    assert comparison.alignment.changed_targets == 1
    assert comparison.provenance["notes"] == ["Prompts left out because their targets differ between the runs: 1."]


def test_a_changed_prompt_is_counted(write):
    changed = {**sample(0, acc=1), "arguments": [["few shots, Q0", "x"]]}
    files = write("a.jsonl", [sample(0, acc=1)]), write("b.jsonl", [changed])
    assert compare_files(*files, Options()).comparison.alignment.changed_prompts == 1


def test_older_rows_have_neither_metrics_nor_filter_nor_hashes(write):
    old = {"doc_id": 0, "doc": {"q": "é"}, "target": "9", "resps": [[["-1.0", "True"]]], "acc": 1}
    lines = orjson.dumps(old) + b"\n" + orjson.dumps(old).replace("é".encode(), rb"\ud800")
    run = read(write("a.jsonl", lines))
    assert (run.metric, run.graded, scores(run)) == ("correct", {"": "acc"}, [1.0, 1.0])
    hashed = {**old, "doc_hash": hashlib.sha256(b'{\n  "q": "\xc3\xa9"\n}').hexdigest()}
    new = {**hashed, "target_hash": hashlib.sha256(b"9").hexdigest(), "acc": 0}
    comparison = compare_files(write("b.jsonl", [old]), write("c.jsonl", [new]), Options()).comparison
    assert (comparison.n, comparison.negative_flips) == (1, 1)


def test_a_document_that_a_task_holds_twice_is_two_prompts(write):
    rows = [sample(i, hashed="same", acc=i % 2) for i in (7, 2)]
    run = read(write("a.jsonl", rows))
    assert {key: entry.answer.score for key, entry in run.entries.items()} == {("same", 1): 1.0, ("same", 0): 0.0}
    with pytest.raises(DataError, match="was there before"):
        read(write("b.jsonl", [rows[0], rows[0]]))


@pytest.mark.parametrize(
    ("grades", "taken"),
    [
        ({"acc": 1, "acc_norm": 0}, "acc_norm"),
        ({"acc": 1, "f1": [1, 0]}, "acc"),
        ({"exact_match": 1, "f1": 0.5}, "exact_match"),
        ({"bleu_acc": 1}, "bleu_acc"),
    ],
)
def test_the_default_metric_is_the_usual_one_and_is_said_where_there_are_others(write, grades, taken):
    run = read(write("a.jsonl", [sample(0, **grades)]))
    assert run.graded == {"": taken}
    several = sum(not isinstance(value, list) for value in grades.values()) > 1
    assert [f"graded by {taken}" in note for note in run.notes] == [True] * several


def test_several_metrics_without_a_usual_one_need_a_choice(write):
    path = write("a.jsonl", [sample(0, bleu_acc=1, bleu_max=41.5)])
    with pytest.raises(DataError, match=r"several metrics\. Choose one with --metric: bleu_acc, bleu_max\."):
        read(path)
    assert scores(read(path, metric="bleu_max")) == [41.5]


def test_a_metric_that_is_a_list_is_refused_by_name(write):
    path = write("a.jsonl", [sample(0, acc=1, f1=[0.5, 1])])
    with pytest.raises(DataError, match=r"--metric f1: is not one number a sample .* Choose one of: acc\."):
        read(path, metric="f1")
    with pytest.raises(DataError, match=r"--metric ac: no such metric\. Did you mean 'acc'"):
        read(path, metric="ac")
    with pytest.raises(DataError, match=r"f1: parts of a sum over all samples"):
        read(write("b.jsonl", [sample(0, f1=[0.5, 1])]))


def test_a_probability_stays_a_score_with_a_margin(write):
    old = write("a.jsonl", [sample(0, acc=0.62), sample(1, acc=0.9)])
    new = write("b.jsonl", [sample(0, acc=0.0), sample(1, acc=1.0)])  # 0 or 1 by chance
    comparison = compare_files(old, new, Options(margin=0.2)).comparison
    assert (comparison.negative_flips, comparison.ties, comparison.margin) == (1, 1, 0.2)
    assert comparison.nfr_given_correct is None


def test_several_filters_need_a_choice_and_are_never_mixed(write):
    rows = [
        {**sample(0, exact_match=value), "filter": name}
        for name, value in (("strict-match", 0.0), ("flexible-extract", 1.0))
    ]
    path = write("a.jsonl", rows)
    with pytest.raises(DataError, match="--metric: exact_match,strict-match, exact_match,flexible-extract"):
        read(path)
    run = read(path, metric="exact_match,flexible-extract")
    assert (scores(run), run.graded) == ([1.0], {"": "exact_match,flexible-extract"})
    with pytest.raises(DataError, match=r"no such filter\. Did you mean 'strict-match'"):
        read(path, metric="exact_match,strict")
    other = write("b.jsonl", [rows[0]])
    with pytest.raises(DataError, match=r"'exact_match,strict-match', .* by 'exact_match,flexible-extract'"):
        compare_files(other, write("c.jsonl", [rows[1]]), Options())


def test_a_metric_of_which_less_is_better_is_turned_around(write):
    old, new = write("a.jsonl", [sample(0, ter=10.0)]), write("b.jsonl", [sample(0, ter=30.0)])
    comparison = compare_files(old, new, Options()).comparison
    assert comparison.negative_flips == 1
    assert comparison.provenance["inputs"][0]["graded"] == {"": "-ter"}


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"null", b"-Infinity"])
def test_a_grade_that_is_no_number_is_an_answer_not_graded(write, value):
    rows = orjson.dumps(sample(0, acc=1)) + b"\n" + orjson.dumps(sample(1, acc="here")).replace(b'"here"', value)
    run = read(write("a.jsonl", rows))
    assert [entry.answer.error for entry in run.entries.values()] == [None, "acc is not a number"]


@pytest.mark.parametrize("row", [{"acc": "1"}, {"acc": [1]}, {"acc": {"a": 1}}, {}])
def test_a_row_without_one_number_is_named(write, row):
    rows = [sample(0, acc=1), {**{k: v for k, v in sample(1, acc=1).items() if k != "acc"}, **row}]
    with pytest.raises(DataError, match=r"a\.jsonl:2: 'acc' is "):
        read(write("a.jsonl", rows))


def test_a_row_of_another_metric_says_by_which_it_is_graded(write):
    path = write("a.jsonl", [sample(0, acc=1), sample(1, em=1, f1=0.5)])
    with pytest.raises(DataError, match=r"a\.jsonl:2: 'acc' is missing; the row is graded by em, f1\. --metric"):
        read(path)


@pytest.fixture
def folder(tmp_path):
    """Two tasks of one model, as the harness leaves them."""
    place = tmp_path / "out" / "org__model"
    place.mkdir(parents=True)
    tasks = {"arc_easy": [sample(i, acc=1, acc_norm=i % 2) for i in range(2)], "gsm8k": [sample(0, exact_match=1.0)]}
    for task, rows in tasks.items():
        lines = b"".join(orjson.dumps(row) + b"\n" for row in rows)
        (place / f"samples_{task}_2025-05-31T13-51-32.123456.jsonl").write_bytes(lines)
    results = {"model_name": "org/model", "higher_is_better": {"gsm8k": {"exact_match": True}}}
    (place / "results_2025-05-31T13-51-32.123456.json").write_bytes(orjson.dumps(results))
    return place


def test_a_folder_holds_several_tasks_each_with_its_metric_and_slice(folder):
    run = read(folder.parent)
    assert (run.name, run.graded) == ("org/model", {"arc_easy": "acc_norm", "gsm8k": "exact_match"})
    assert list(run.entries) == [("arc_easy/hash0", 0), ("arc_easy/hash1", 0), ("gsm8k/hash0", 0)]
    assert [entry.categories for entry in run.entries.values()] == [("arc_easy",), ("arc_easy",), ("gsm8k",)]
    assert len(run.files) == 3
    assert read(folder, metric="arc_easy=acc").graded["arc_easy"] == "acc"
    with pytest.raises(DataError, match=r"no such task\. Did you mean 'arc_easy'"):
        read(folder, metric="arc_esy=acc")


def about(number, key, value):
    row = sample(number, acc=1)
    return {**row, "doc": {**row["doc"], key: value}}


@pytest.mark.parametrize("key", ["category", "subject"])
def test_what_a_document_is_about_is_its_slice(write, key):
    run = read(write("a.jsonl", [about(i, key, ("law", "art", "")[i % 3]) for i in range(6)]))
    assert [entry.categories for entry in run.entries.values()] == [("law",), ("art",), ()] * 2


@pytest.mark.parametrize("value", ["law", None, 7, ["law"], {"a": 1}, ""])
def test_a_subject_that_all_documents_share_is_no_slice(write, value):
    run = read(write("a.jsonl", [about(i, "subject", value) for i in range(6)]))
    assert {entry.categories for entry in run.entries.values()} == {()}


def test_subjects_that_nearly_every_document_has_for_itself_are_no_slices(write):
    run = read(write("a.jsonl", [about(i, "subject", f"person {i % 4}") for i in range(6)]))
    assert {entry.categories for entry in run.entries.values()} == {()}


def test_in_a_folder_the_subjects_of_a_task_stand_beside_the_task(folder):
    rows = [{**about(i, "category", f"kind {i % 2}"), "exact_match": 1.0, "metrics": ["exact_match"]} for i in range(4)]
    path = next(folder.glob("samples_gsm8k*"))
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    slices = {entry.categories for entry in read(folder).entries.values()}
    assert slices == {("arc_easy",), ("gsm8k", "gsm8k/kind 0"), ("gsm8k", "gsm8k/kind 1")}


def test_a_choice_that_one_task_of_a_folder_needs_names_the_task(folder):
    path = next(folder.glob("samples_gsm8k*"))
    rows = [{**sample(0, exact_match=1.0), "filter": name} for name in ("strict-match", "flexible-extract")]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    with pytest.raises(DataError, match=r"several filters\. .* Where several tasks are read, write gsm8k=GRADE\."):
        read(folder)
    assert read(folder, metric="gsm8k=exact_match,strict-match").graded["gsm8k"] == "exact_match,strict-match"


def test_a_task_that_ran_twice_needs_a_choice(folder):
    again = folder / "samples_gsm8k_2025-06-01T00-00-00.1.jsonl.gz"
    again.write_bytes(gzip.compress(orjson.dumps(sample(0, exact_match=0.0))))
    with pytest.raises(DataError, match="gsm8k ran several times"):
        read(folder)
    assert scores(read(folder, duplicates="first"))[-1] == 1.0
    last = read(folder, duplicates="last")
    assert scores(last)[-1] == 0.0
    assert f"Of 2 runs of gsm8k, {again.name} was taken." in last.notes


def test_a_folder_of_several_models_is_refused_with_their_names(folder):
    other = folder.parent / "org__other"
    other.mkdir()
    (other / "samples_gsm8k_1.jsonl").write_bytes(orjson.dumps(sample(0, acc=1)))
    with pytest.raises(DataError, match="org__model, org__other"):
        read(folder.parent)


@pytest.mark.parametrize("metric", ["bleu_acc", "rouge1_acc"])
def test_two_real_runs_of_truthfulqa_have_the_counts_of_an_independent_script(shared, metric):
    logs = shared / "lm_eval_logs"
    fact = orjson.loads((logs / "reference_facts.json").read_bytes())[f"truthfulqa_gen:{metric} run1->run2"]
    names = [f"samples_truthfulqa_gen_neo125_2025-05-31T{time}.jsonl.gz" for time in ("13-51-32", "14-30-51")]
    result = compare_files(*(logs / name for name in names), Options(metric=metric, max_nfr=0.05))
    comparison, account = result.comparison, result.comparison.alignment
    assert (account.old, account.new, account.matched) == (fact["n_old"], fact["n_new"], fact["n_common"])
    assert (comparison.negative_flips, comparison.positive_flips) == (fact["nf"], fact["pf"])
    assert comparison.verdict == "invalid"
    run = read(logs / names[0], metric=metric)
    assert sum(scores(run)) / 817 == pytest.approx(fact["mean_run1_reported"])
    assert run.name == "EleutherAI/gpt-neo-125M"
    assert len({entry.categories for entry in run.entries.values()}) == 38
    assert sum(pair.old.completion == pair.new.completion for pair in result.pairs) == fact["same_resps"]


@pytest.mark.parametrize(("task", "metric"), [("belief", "acc"), ("intention", "exact_match")])
def test_two_real_runs_of_negotiationtom_have_the_counts_of_an_independent_script(shared, task, metric):
    logs = shared / "lm_eval_logs"
    fact = orjson.loads((logs / "reference_facts.json").read_bytes())[f"negotiationtom_{task}:{metric} runA->runB"]
    paths = [logs / f"samples_negotiationtom_{task}_qwen3-8b_run{run}.jsonl.gz" for run in "AB"]
    comparison = compare_files(*paths, Options()).comparison
    assert (comparison.n, comparison.negative_flips, comparison.positive_flips) == (fact["n"], fact["nf"], fact["pf"])
    assert [sum(scores(read(path))) / 20 for path in paths] == [fact["acc_old"], fact["acc_new"]]


def test_real_rows_of_an_older_harness_are_read(shared):
    run = read(shared / "lm_eval_logs" / "samples_asdiv_llama3-8b-instruct_2024-08-21.jsonl.gz")
    assert (len(run.entries), run.metric, sum(scores(run))) == (50, "correct", 46.0)
