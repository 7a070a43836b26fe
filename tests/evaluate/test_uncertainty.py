"""From the command's files to floor, rival, clusters and orders in the result and in every view."""

import hashlib
import re
from pathlib import Path

import orjson
import pytest

from flipguard.errors import FlipGuardError
from flipguard.evaluate.bootstrap import clustered
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.report import html, markdown, terminal
from flipguard.evaluate.results import write_results
from flipguard.evaluate.stats import mcnemar, upper_bound

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the public data sets are not beside this project")


def right(*values, **more):
    return [{"id": i, "correct": bool(value), **more} for i, value in enumerate(values)]


@pytest.fixture
def runs(write):
    """Old, new, the old model again and a rival, on forty prompts."""
    return {
        "old": write("old.jsonl", right(*[1] * 40)),
        "new": write("new.jsonl", right(*[0] * 8, *[1] * 32)),
        "floor": write("floor.jsonl", right(*[1] * 6, *[0] * 3, *[1] * 31)),
        "against": write("rival <b>.jsonl", right(*[1] * 6, *[0] * 3, *[1] * 31)),
    }


def views(result):
    return [
        terminal.render(result.comparison),
        markdown.render(result.comparison, result.pairs),
        html.render(result.comparison, result.pairs),
    ]


def test_the_floor_and_the_excess_over_it_are_in_the_result_and_in_every_view(runs):
    result = compare_files(runs["old"], runs["new"], Options(floor=runs["floor"]))
    told = result.comparison.floor
    assert (told["nfr"]["k"], told["nfr"]["n"]) == (3, 40)
    assert told["excess"]["value"] == pytest.approx(5 / 40)
    assert (told["excess"]["only_update"], told["excess"]["only_floor"]) == (6, 1)
    assert all("+12.5 points" in view for view in views(result))


def test_a_rival_is_compared_prompt_by_prompt_and_its_name_is_only_text(runs):
    result = compare_files(runs["old"], runs["new"], Options(against=runs["against"]))
    told = result.comparison.rival
    assert (told.name, told.n, told.only_this, told.only_other) == ("rival <b>", 40, 6, 1)
    assert told.p_value == mcnemar(6, 1)
    screen, note, page = views(result)
    assert "rival <b>" in screen
    assert "<b>.jsonl" not in page
    assert "rival &lt;b&gt;" in note
    assert "rival &lt;b&gt;" in page


def test_the_files_beside_are_in_the_provenance_and_the_result_is_written(runs, tmp_path):
    result = compare_files(runs["old"], runs["new"], Options(floor=runs["floor"], against=runs["against"], seed=3))
    provenance = result.comparison.provenance
    assert [entry["path"] for entry in provenance["inputs"]] == [str(path) for path in runs.values()]
    assert (provenance["floor"], provenance["seed"], provenance["min_slice"]) == (str(runs["floor"]), 3, 10)
    written = orjson.loads(write_results(tmp_path / "out", result)[0].read_bytes())
    assert written["floor"]["excess"]["n"] == written["rival"]["n"] == 40
    assert written["clustered"] is None


def test_judgments_take_judgments_of_the_old_model_against_itself(write):
    def judgments(name, *winners):
        rows = [{"id": i, "old": {}, "new": {}, "verdicts": words(winner)} for i, winner in enumerate(winners)]
        return write(name, rows)

    def words(winner):
        return [{"order": order, "winner": winner} for order in ("old_first", "new_first")]

    both, again = judgments("j.jsonl", "old", "old", "new"), judgments("aa.jsonl", "old", "tie", "tie")
    told = compare_files(both, None, Options(floor=again)).comparison
    assert (told.floor["nfr"]["k"], told.floor["excess"]["only_update"]) == (1, 1)
    assert (told.orders.both.k, told.orders.either.k) == (2, 2)
    with pytest.raises(FlipGuardError, match="not the same scale"):
        compare_files(both, None, Options(floor=write("s.jsonl", right(1, 1, 1))))


def test_judgments_with_scores_take_one_more_run_of_the_old_model(write):
    rows = [{"id": i, "old": {"score": 1.0}, "new": {"score": i % 2}} for i in range(20)]
    again = write("again.jsonl", [{"id": i, "score": float(i % 10 > 0)} for i in range(20)])
    told = compare_files(write("j.jsonl", rows), None, Options(floor=again)).comparison
    assert (told.floor["nfr"]["k"], told.floor["excess"]["value"]) == (2, pytest.approx(8 / 20))


def test_a_floor_that_cannot_be_one_is_refused_by_name(write, runs):
    compared = runs["old"], runs["new"]
    for path, said in (
        (runs["old"], "is the file that is compared"),
        (write("s.jsonl", [{"id": 0, "score": 0.5}]), "not the same scale"),
        (write("x.jsonl", [{"id": "elsewhere", "correct": True}]), "no prompt in common"),
    ):
        with pytest.raises(FlipGuardError, match=rf"--floor .*{said}"):
            compare_files(*compared, Options(floor=path))


def test_repeats_that_agree_do_not_let_an_update_pass(write):
    """Forty prompts ten times over: no flip among 400 answers would pass 2 %, none among 40 prompts does not."""
    rows = [row for repeat in range(10) for row in right(*[1] * 40, repeat=repeat)]
    result = compare_files(write("o.jsonl", rows), write("n.jsonl", rows), Options(max_nfr=0.02))
    told = result.comparison
    assert upper_bound(0, 400) < 0.02
    assert told.clustered == clustered(result.pairs)
    assert told.upper == told.nfr.upper == told.clustered.nfr.upper > 0.05
    assert told.nfr.over == told.win_rate.over == told.nfr_given_correct.over == "clusters"
    assert told.verdict == "inconclusive"
    assert re.search(
        r"about \d+ clusters of prompts \(10 pairs each\) would decide, \d+ more than the 40 here", told.reason
    )
    assert all("40 clusters" in view for view in views(result))


def test_clusters_that_all_broke_fail(write):
    old, new = ([row for repeat in (0, 1) for row in right(*[side] * 40, repeat=repeat)] for side in (1, 0))
    assert (
        compare_files(write("o.jsonl", old), write("n.jsonl", new), Options(max_nfr=0.5)).comparison.verdict == "fail"
    )


def test_scores_have_a_mean_change_with_interval_and_test(write):
    files = [
        write(f"{side}.jsonl", [{"id": i, "score": i % 5 + side * (0.5 + i % 3)} for i in range(30)]) for side in (0, 1)
    ]
    result = compare_files(*files, Options())
    told = result.comparison.change
    assert told.low < 1.5 == told.mean < told.high
    assert told.p_value < 0.001
    assert all("+1.5" in view for view in views(result))


@needs_data
def test_the_bracket_of_phi_3_is_that_of_an_independent_count(write):
    first = {"model_1": "old", "model_2": "new", "tie": "tie", "error": "invalid"}
    lines = (DATA / "mt_bench" / "raw_phi3_gpt-4_pair.jsonl").read_bytes().splitlines()
    judgments = [
        {
            "id": i,
            "old": {},
            "new": {},
            "verdicts": [
                {"order": order, "winner": first[row[game]]}
                for order, game in (("old_first", "g1_winner"), ("new_first", "g2_winner"))
            ],
        }
        for i, row in enumerate(map(orjson.loads, lines))
    ]
    told = compare_files(write("j.jsonl", judgments), None, Options()).comparison.orders
    assert (told.n, told.both.k, told.inconsistent.k) == (73, 18, 27)
    assert round(100 * told.old_first.value, 1) == 53.4
    assert round(100 * told.new_first.value, 1) == 27.4
    assert told.both.k < told.new_first.k < told.old_first.k < told.either.k
    assert (told.first_place, told.second_place) == (24, 3)
    assert told.p_value == mcnemar(24, 3) < 0.001


@pytest.mark.parametrize(("option", "part"), [("floor", "only in floor 0"), ("against", "only in against 0")])
def test_a_further_run_that_covers_only_part_is_noted_and_beyond_the_limit_invalid(write, runs, option, part):
    partly = write("part.jsonl", right(*[1] * 38))
    told = compare_files(runs["old"], runs["new"], Options(**{option: partly}, max_unmatched=0.05)).comparison
    assert told.verdict == "none"
    assert f"--{option} has 38 of the 40 prompts compared and 0 others; 0 of its pairs" in told.reason
    (coverage,) = told.companions
    assert (coverage.alignment.matched, coverage.alignment.only_old, coverage.valid) == (38, 2, 38)
    strict = compare_files(runs["old"], runs["new"], Options(**{option: partly}, max_unmatched=0.04)).comparison
    assert strict.verdict == "invalid"
    assert f"2 of 40 prompts have no partner in --{option} (5.00 %, --max-unmatched allows 4.00 %)" in strict.reason
    assert part in strict.reason


def test_a_further_run_that_is_not_graded_is_invalid_and_a_policy_says_so_by_rule(write, runs):
    rows = [row | ({"correct": None} if row["id"] < 4 else {}) for row in right(*[1] * 40)]
    floor = write("gaps.jsonl", rows)
    told = compare_files(runs["old"], runs["new"], Options(floor=floor)).comparison
    assert (told.verdict, told.companions[0].invalid) == ("invalid", 4)
    assert "4 of 40 pairs of --floor could not be graded" in told.reason
    policy = write("p.yaml", b"limit: 0.5\nestimand: excess")
    ruled = compare_files(runs["old"], runs["new"], Options(floor=floor, policy=policy)).comparison
    assert {rule.name: rule.verdict for rule in ruled.rules}["invalid pairs, floor"] == ruled.verdict == "invalid"


def test_no_note_says_that_the_intervals_of_labels_take_pairs_for_independent(write):
    """They are over clusters, as all others."""
    rows = [{"id": i, "cluster": str(i // 4), "old": {"score": 1.0}, "new": {"score": i // 4 % 2}} for i in range(40)]
    people = [{"id": i, "better": "old" if i // 4 % 2 == 0 else "tie"} for i in range(20)]
    labels = str(write("people.jsonl", people))
    told = compare_files(write("j.jsonl", rows), None, Options(labels=labels)).comparison
    alone = [{key: value for key, value in row.items() if key != "cluster"} for row in rows]
    plain = compare_files(write("k.jsonl", alone), None, Options(labels=labels)).comparison
    assert told.labels.nfr.high - told.labels.nfr.low > plain.labels.nfr.high - plain.labels.nfr.low
    assert "independent" not in told.reason


def test_every_further_file_is_in_the_inputs_with_its_hash(write, runs):
    def judged(name, judge, worse):
        rows = [
            {"id": i, "judge": judge, "old": {"score": 1.0}, "new": {"score": float(i >= worse)}} for i in range(40)
        ]
        return write(name, rows)

    labels = write("people.jsonl", [{"id": i, "better": "tie"} for i in range(5)])
    options = Options(also=[str(judged("k.jsonl", "k", 3)), str(runs["old"].parent / "k.jsonl")], labels=str(labels))
    inputs = compare_files(judged("j.jsonl", "j", 2), None, options).comparison.provenance["inputs"]
    assert [(Path(given["path"]).name, given["format"], given["rows"]) for given in inputs] == [
        ("j.jsonl", "judgments", 40),
        ("k.jsonl", "judgments", 40),
        ("k.jsonl", "judgments", 40),
        ("people.jsonl", "labels", 5),
    ]
    assert all(given["sha256"] == hashlib.sha256(Path(given["path"]).read_bytes()).hexdigest() for given in inputs)
