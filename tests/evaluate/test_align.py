"""Two runs brought together by id and repeat; what does not fit is counted, never dropped in silence."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipguard.errors import DataError, FlipGuardError
from flipguard.evaluate.align import align
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.comparison import Answer
from flipguard.evaluate.report import terminal
from flipguard.evaluate.runs import Entry, Run

IDS = st.sets(st.integers(0, 30).map(str), max_size=30)


def run(name, entries, metric="score", duplicates=0):
    return Run(name, metric, entries, (Path(f"{name}.jsonl"),), duplicates)


def plain(name, ids, **more):
    return run(name, {(id_, 0): Entry(Answer(1.0)) for id_ in ids}, **more)


@given(old=IDS, new=IDS)
def test_every_answer_is_matched_or_counted_as_alone(old, new):
    told = align(plain("old", old), plain("new", new), margin=0.1)
    account = told.alignment
    assert account.matched == len(told.pairs) == len(old & new)
    assert account.matched + account.only_old == account.old == len(old)
    assert account.matched + account.only_new == account.new == len(new)


def test_ids_that_match_only_as_text_are_refused_and_shown():
    with pytest.raises(DataError, match=r"old\.jsonl has id 1 where new\.jsonl has '1': 2 ids match only as text"):
        align(plain("old", [1, 2, "x"]), plain("new", ["1", "2", "x"]), margin=0.1)


def test_a_number_and_its_text_may_both_be_ids_where_both_files_have_both():
    assert align(plain("old", [1, "1"]), plain("new", ["1", 1]), margin=0.1).alignment.matched == 2


def test_each_repeat_is_a_pair_of_its_own():
    old = run("old", {("a", r): Entry(Answer(1.0)) for r in (0, 1)})
    new = run("new", {("a", r): Entry(Answer(0.0)) for r in (1, 2)})
    told = align(old, new, margin=0.1)
    assert [(pair.id, pair.repeat, pair.outcome) for pair in told.pairs] == [("a", 1, "negative_flip")]
    assert (told.unmatched_old, told.unmatched_new) == (["'a'"], ["'a', repeat 2"])


def test_prompts_that_changed_are_counted_and_missing_ones_are_not():
    old = run("old", {(i, 0): Entry(Answer(1.0), prompt) for i, prompt in enumerate(["a", "b", None, "d"])})
    new = run("new", {(i, 0): Entry(Answer(1.0), prompt) for i, prompt in enumerate(["a", "B", "c", None])})
    told = align(old, new, margin=0.1)
    assert told.alignment.changed_prompts == 1
    assert [pair.prompt for pair in told.pairs] == ["a", "b", "c", "d"]


def test_what_only_the_new_run_knows_of_a_prompt_is_kept():
    old = run("old", {(1, 0): Entry(Answer(1.0))})
    new = run("new", {(1, 0): Entry(Answer(1.0), "p", ("c",), "k")})
    (pair,) = align(old, new, margin=0.1).pairs
    assert (pair.prompt, pair.categories, pair.cluster) == ("p", ("c",), "k")


def test_runs_graded_in_two_ways_are_refused():
    with pytest.raises(DataError, match=r"old\.jsonl is graded by 'score', new\.jsonl by 'correct'.*--metric"):
        align(plain("old", [1]), plain("new", [1], metric="correct"), margin=0.1)


def test_duplicates_of_both_sides_are_added():
    assert align(plain("old", [1], duplicates=2), plain("new", [1], duplicates=3), margin=0.1).alignment.duplicates == 5


@pytest.mark.parametrize(("rule", "n", "flips", "noted"), [("drop", 3, 0, "left out"), ("keep", 4, 1, "by its own")])
def test_another_reference_under_one_id_is_an_error_or_an_explicit_choice(write, rule, n, flips, noted):
    old = write("old.jsonl", [{"id": i, "correct": True, "reference": "4"} for i in range(4)])
    new = write("new.jsonl", [{"id": i, "correct": i > 0, "reference": "4" if i else 5} for i in range(4)])
    with pytest.raises(DataError, match=r"new\.jsonl: another right answer than in .*for id 0\. .*--changed-targets"):
        compare_files(old, new, Options())
    comparison = compare_files(old, new, Options(changed_targets=rule)).comparison
    assert (comparison.n, comparison.negative_flips, comparison.alignment.changed_targets) == (n, flips, 1)
    assert noted in comparison.reason
    assert "1 changed targets" in terminal.render(comparison)
    assert comparison.provenance["changed_targets"] == rule
    with pytest.raises(FlipGuardError, match=r"--changed-targets: unknown rule 'first'\. Choose one of: "):
        Options(changed_targets="first")
