"""MT-Bench: marks of several models in one file, and verdicts in both orders."""

from pathlib import Path

import pytest

from flipguard.errors import DataError
from flipguard.evaluate import importers
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.intake import BadLines, Intake


def mark(question, model, score, turn=1, judge="gpt-4"):
    return {"question_id": question, "model": model, "judge": [judge, "single-v1"], "score": score, "turn": turn}


def game(first, second, question=1, models=("a", "b"), judge="gpt-4"):
    rows = {"question_id": question, "model_1": models[0], "model_2": models[1], "judge": [judge, "pair-v2"], "turn": 1}
    return {**rows, "g1_winner": first, "g2_winner": second, "g1_judgment": "since"}


def part(path, name):
    return Path(f"{path}#{name}")


def read(path, **rules):
    return importers.read(path, Intake(**rules))[1]


def test_several_models_in_one_file_are_named_by_part(write):
    path = write("s.jsonl", [mark(1, "a", 8), mark(1, "lab/b", 5), mark(2, "a", 3), mark(2, "lab/b", 3)])
    with pytest.raises(DataError, match=r"several models: a, lab/b\. Name .*: s\.jsonl#a s\.jsonl#lab/b\."):
        read(path)
    comparison = compare_files(part(path, "a"), part(path, "lab/b"), Options()).comparison
    assert (comparison.old, comparison.new) == ("a", "lab/b")
    assert (comparison.n, comparison.negative_flips, comparison.ties) == (2, 1, 1)
    with pytest.raises(DataError, match=r"nothing of 'lab/bb'\. Did you mean 'lab/b'"):
        read(part(path, "lab/bb"))


def test_one_model_alone_needs_no_name(write):
    assert read(write("s.jsonl", [mark(1, "a", 8)])).name == "a"


def test_turns_are_prompts_of_their_own_in_one_cluster(write):
    run = read(write("s.jsonl", [mark(1, "a", 8), mark(1, "a", 6, turn=2)]))
    assert list(run.entries) == [("1 turn 1", 0), ("1 turn 2", 0)]
    assert {entry.cluster for entry in run.entries.values()} == {"question 1"}


@pytest.mark.parametrize("value", [-1, [-1, -1], None, float("nan")])
def test_a_mark_that_was_not_parsed_is_not_graded(write, value):
    lines = repr(mark(1, "a", value)).replace("'", '"').replace("None", "null").replace("nan", "NaN").encode()
    entry = read(write("s.jsonl", lines + b"\n")).entries["1 turn 1", 0]
    assert (entry.answer.score, entry.answer.error) == (None, "the mark was not parsed")


@pytest.mark.parametrize("value", ["7", "error", True, 11, -2, [7], {}])
def test_a_mark_that_is_none_is_named(write, value):
    path = write("s.jsonl", [mark(1, "a", 8), mark(2, "a", value)])
    with pytest.raises(DataError, match=r"s\.jsonl:2: 'score' is .*; expected a mark from 1 to 10"):
        read(path)
    assert len(read(path, bad=BadLines(1)).entries) == 1


@pytest.mark.parametrize("change", [{"question_id": None}, {"turn": 0}, {"turn": "1"}, {"model": ""}, {"model": 3}])
def test_a_row_without_question_turn_or_model_is_named(write, change):
    with pytest.raises(DataError, match=rf"s\.jsonl:2: '{next(iter(change))}' is"):
        read(write("s.jsonl", [mark(1, "a", 8), {**mark(2, "a", 8), **change}]))


def test_several_runs_under_one_name_need_a_choice(write):
    path = write("s.jsonl", [mark(1, "a", 8), mark(1, "a", 2)])
    with pytest.raises(DataError, match=r"'1 turn 1', repeat 0 was there before, in line 1.* --duplicates"):
        read(path)
    runs = {rule: read(path, duplicates=rule) for rule in ("first", "last")}
    assert {rule: run.entries["1 turn 1", 0].answer.score for rule, run in runs.items()} == {"first": 8.0, "last": 2.0}


def test_several_judges_need_a_choice(write):
    path = write("s.jsonl", [mark(1, "a", 8), mark(1, "a", 2, judge="claude")])
    with pytest.raises(DataError, match=r"several judges\. Choose one with --metric: claude, gpt-4"):
        read(path)
    assert read(path, metric="claude").graded == {"": "claude"}


@pytest.mark.parametrize("folder", [".", "model_judgment"])
def test_questions_give_categories_and_prompts(write, tmp_path, folder):
    write("question.jsonl", [{"question_id": 1, "category": "math", "turns": ["Q1", "Q2"]}, {"question_id": [1]}])
    (tmp_path / folder).mkdir(exist_ok=True)
    run = read(write(f"{folder}/s.jsonl", [mark(1, "a", 8, turn=turn) for turn in (1, 2, 3)]))
    assert [entry.prompt for entry in run.entries.values()] == ["Q1", "Q2", None]
    assert {entry.categories for entry in run.entries.values()} == {("math",)}
    assert tmp_path / "question.jsonl" in run.files


def answers(*turns):
    return {"question_id": 1, "answer_id": "x", "model_id": "ignored", "choices": [{"index": 0, "turns": list(turns)}]}


@pytest.fixture
def fastchat(write, tmp_path):
    """The folders of FastChat: questions, answers, judgments; returns both judgment files."""
    for folder in ("model_answer", "model_judgment"):
        (tmp_path / folder).mkdir()
    write("question.jsonl", [{"question_id": 1, "category": "math", "turns": ["Q1", "Q2"]}])
    write("model_answer/a.jsonl", [answers("old draft"), answers("same", "old 2")])
    write("model_answer/b.jsonl", [answers("same", "new 2")])
    marks = [mark(1, model, score, turn) for model, score in (("a", 9), ("b", 2)) for turn in (1, 2)]
    games = [game("model_1", "model_1"), {**game("model_1", "model_1"), "turn": 2}]
    return write("model_judgment/s.jsonl", marks), write("model_judgment/p.jsonl", games)


def test_answers_beside_the_judgments_are_read_and_identical_ones_are_a_tie(fastchat, tmp_path):
    single, pair = fastchat
    for result in (
        compare_files(part(single, "a"), part(single, "b"), Options()),
        compare_files(part(pair, "a"), None, Options()),
    ):
        texts = [(one.old.completion, one.new.completion, one.outcome) for one in result.pairs]
        assert texts == [("same", "same", "tie"), ("old 2", "new 2", "negative_flip")]
        read_files = {each["path"] for each in result.comparison.provenance["inputs"]}
        assert {str(tmp_path / "model_answer" / f"{name}.jsonl") for name in "ab"} <= read_files


def test_questions_that_lie_elsewhere_are_named(fastchat, tmp_path):
    single, pair = fastchat
    away = tmp_path / "away" / "deep"
    away.mkdir(parents=True)
    lone = single.rename(away / "s.jsonl")
    assert read(part(lone, "a")).entries["1 turn 1", 0].categories == ()
    run = read(part(lone, "a"), questions=tmp_path / "question.jsonl")
    entry = run.entries["1 turn 2", 0]
    assert (entry.prompt, entry.categories, entry.answer.completion) == ("Q2", ("math",), "old 2")
    both = read(part(pair, "a"), questions=tmp_path / "question.jsonl")
    assert both.judgments["1 turn 1", 0].prompt == "Q1"


def test_wrong_questions_are_an_error(fastchat, write, tmp_path):
    other = write("other.jsonl", [{"question_id": 7, "turns": ["Q"]}])
    for path in fastchat:
        with pytest.raises(DataError, match=r"--questions .*other\.jsonl: has none of the questions that were judged"):
            read(part(path, "a"), questions=other)
        with pytest.raises(DataError, match="no such file"):
            read(part(path, "a"), questions=tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match=r"--questions: belongs to mt_bench and mt_bench_pairs, but .* is scores"):
        read(write("x.jsonl", [{"id": 1, "score": 1}]), questions=other)


@pytest.mark.parametrize("name", ["../a", "/etc/hostname", "..", "x/../../a", "a\x00"])
@pytest.mark.usefixtures("fastchat")
def test_the_name_of_a_model_leads_to_no_other_folder(write, name):
    path = write("model_judgment/t.jsonl", [mark(1, name, 5)])
    assert read(path).entries["1 turn 1", 0].answer.completion is None


@pytest.mark.parametrize(
    "row", [{"choices": []}, {"choices": None}, {"choices": [{"turns": "x"}]}, {"choices": [{"turns": [1]}]}, {}]
)
def test_answers_of_another_shape_are_no_texts(fastchat, write, row):
    write("model_answer/a.jsonl", [{"question_id": 1, **row}])
    assert read(part(fastchat[0], "a")).entries["1 turn 1", 0].answer.completion is None


@pytest.mark.parametrize(
    ("winners", "outcome"),
    [
        (("model_1", "model_1"), "negative_flips"),
        (("model_2", "model_2"), "positive_flips"),
        (("tie", "tie"), "ties"),
        (("model_1", "model_2"), "inconsistent"),
        (("tie", "model_1"), "inconsistent"),
        (("error", "model_1"), "invalid"),
    ],
)
def test_a_flip_needs_both_orders(write, winners, outcome):
    path = write("p.jsonl", [game(*winners)])
    comparison = compare_files(part(path, "a"), None, Options()).comparison
    counted = {name: getattr(comparison, name) for name in ("negative_flips", "positive_flips", "ties", "inconsistent")}
    assert {**counted, "invalid": comparison.invalid} == {**dict.fromkeys(counted, 0), "invalid": 0, outcome: 1}


def test_the_old_model_must_be_named_and_may_stand_on_either_side(write):
    path = write("p.jsonl", [game("model_1", "model_1"), game("model_2", "model_2", 2, ("b", "a"))])
    with pytest.raises(DataError, match=r"judges a against b\. Which one is the old model\? Write p\.jsonl#a"):
        read(path)
    both = read(part(path, "a"))
    orders = [[(verdict["order"], verdict["winner"]) for verdict in item.verdicts] for item in both.judgments.values()]
    assert orders == [[("old_first", "old"), ("new_first", "old")], [("new_first", "old"), ("old_first", "old")]]
    assert next(iter(both.judgments.values())).verdicts[0]["reason"] == "since"


def test_a_model_judged_against_several_needs_both_names(write):
    path = write("p.jsonl", [game("tie", "tie"), game("model_1", "model_1", models=("a", "c"))])
    with pytest.raises(DataError, match="judges a against several: b, c"):
        read(part(path, "a"))
    comparison = compare_files(part(path, "a"), part(path, "c"), Options()).comparison
    assert (comparison.n, comparison.negative_flips, comparison.new) == (1, 1, "c")
    with pytest.raises(DataError, match="no judgment of 'b against d'"):
        compare_files(part(path, "b"), part(path, "d"), Options())


def test_models_that_were_judged_against_a_baseline_only_are_not_compared_with_each_other(write):
    rows = [game("tie", "tie", models=("b", "gpt-3.5")), game("tie", "tie", models=("c", "gpt-3.5"))]
    path = write("p.jsonl", rows)
    with pytest.raises(DataError, match=r"b and c were never judged against each other; b was against gpt-3\.5\. Cho"):
        compare_files(part(path, "b"), part(path, "c"), Options())
    assert compare_files(part(path, "gpt-3.5"), part(path, "c"), Options()).comparison.n == 1


@pytest.mark.parametrize("winner", ["A", "Tie", None, ["tie"], -1])
def test_an_unknown_winner_is_named_with_the_choices(write, winner):
    with pytest.raises(DataError, match=r"p\.jsonl:1: 'g2_winner' is .*Choose one of: model_1, model_2, tie, error"):
        read(part(write("p.jsonl", [game("tie", winner)]), "a"))


def test_several_judges_of_pairs_need_a_choice(write):
    path = part(write("p.jsonl", [game("tie", "tie"), game("tie", "tie", judge="claude")]), "a")
    with pytest.raises(DataError, match=r"several judges\. Choose one with --metric: claude, gpt-4"):
        read(path)
    assert read(path, metric="claude").graded == {"": "claude"}


@pytest.mark.parametrize(("rule", "means", "n"), [("first", (5.39, 5.98), 159), ("last", (6.33, 6.00), 160)])
def test_the_real_marks_have_the_means_of_an_independent_script(shared, rule, means, n):
    path = shared / "mt_bench" / "judgments_single.jsonl.gz"
    old, new = part(path, "mistral-orpo"), part(path, "mistral-orpo-mix")
    with pytest.raises(DataError, match="was there before"):
        compare_files(old, new, Options())
    result = compare_files(old, new, Options(duplicates=rule))
    assert (round(result.comparison.means.old, 2), round(result.comparison.means.new, 2)) == means
    assert (result.comparison.n, result.comparison.invalid) == (n, 160 - n)
    assert len(result.comparison.slices) == 8


def test_the_real_verdicts_on_phi_3_have_the_counts_of_an_independent_script(shared):
    path = shared / "mt_bench" / "raw_phi3_gpt-4_pair.jsonl"
    for name, flips in (("phi-3", (18, 20)), ("phi-3-dpo", (20, 18))):
        comparison = compare_files(part(path, name), None, Options()).comparison
        assert (comparison.negative_flips, comparison.positive_flips) == flips
        counted = (comparison.n, comparison.ties, comparison.inconsistent, comparison.invalid)
        assert counted == (73, 8, 27, 2)
