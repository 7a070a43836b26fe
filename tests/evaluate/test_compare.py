"""From two files to one comparison: the numbers add up, whatever the rows are."""

import gzip
import hashlib
import math
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flipguard.errors import FlipGuardError
from flipguard.evaluate import stats
from flipguard.evaluate.compare import Options, compare_files

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the public data sets are not beside this project")
fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SCORES = st.one_of(
    st.none(), st.integers(-3, 3), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["garbage", True])
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"id": st.one_of(st.integers(0, 6), st.sampled_from(["a", "1"]))},
        optional={
            "score": SCORES,
            "correct": st.sampled_from([True, False, None, 1]),
            "repeat": st.integers(-1, 1),
            "category": st.sampled_from(["x", ["x", "y"], [], None, 3]),
            "cluster": st.sampled_from(["k", None]),
            "prompt": st.sampled_from(["p", "q", [{"role": "user", "content": "p"}], 1]),
            "completion": st.sampled_from(["same", "other", None]),
            "error": st.sampled_from([None, "timeout"]),
        },
    ),
    max_size=8,
)
SIDE = st.one_of(st.none(), st.fixed_dictionaries({}, optional={"score": SCORES, "completion": st.sampled_from("ab")}))
VERDICTS = st.lists(
    st.fixed_dictionaries(
        {
            "order": st.sampled_from(["old_first", "new_first"]),
            "winner": st.sampled_from(["old", "new", "tie", "invalid"]),
        }
    ),
    max_size=3,
)


def add_up(comparison):
    counted = (comparison.negative_flips, comparison.positive_flips, comparison.ties, comparison.inconsistent)
    assert comparison.n == sum(counted)
    assert comparison.alignment.matched == comparison.n + comparison.invalid
    assert comparison.nfr.k == comparison.negative_flips
    assert comparison.nfr.low <= (comparison.nfr.value or 0.0) <= comparison.nfr.high
    orjson.dumps(comparison.to_json())


def add_up_or_say_why(old, new, options):
    """Any other exception than ours fails the test."""
    said = ""
    try:
        comparison = compare_files(old, new, options).comparison
    except FlipGuardError as error:
        said = str(error)
    else:
        add_up(comparison)
    assert said == "" or (said.endswith((".", "?")) and "\n" not in said)


@fuzz
@given(old=ROWS, new=ROWS, rule=st.sampled_from(["error", "first", "last"]), skip_bad=st.integers(0, 9))
def test_random_rows_give_counts_that_add_up_or_one_clear_error(write, old, new, rule, skip_bad):
    paths = write("old.jsonl", old), write("new.jsonl", new)
    add_up_or_say_why(*paths, Options(duplicates=rule, skip_bad=skip_bad, max_nfr=0.5))


@fuzz
@given(rows=st.lists(st.tuples(SIDE, SIDE, VERDICTS), max_size=8))
def test_random_judgments_give_counts_that_add_up_or_one_clear_error(write, rows):
    path = write("j.jsonl", [{"id": i, "old": a, "new": b, "verdicts": v} for i, (a, b, v) in enumerate(rows)])
    for metric in (None, "score"):
        add_up_or_say_why(path, None, Options(max_nfr=0.5, metric=metric))


@fuzz
@given(scores=st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=20))
def test_swapping_the_runs_swaps_the_flips(write, scores):
    old, new = (write(f"{side}.jsonl", [{"id": i, "score": s[side]} for i, s in enumerate(scores)]) for side in (0, 1))
    there, back = compare_files(old, new, Options()).comparison, compare_files(new, old, Options()).comparison
    assert (there.negative_flips, there.positive_flips) == (back.positive_flips, back.negative_flips)
    assert there.net.p_value == back.net.p_value
    assert there.net.value == -back.net.value
    assert (there.net.low, there.net.high) == pytest.approx((-back.net.high, -back.net.low), abs=1e-9)


def two(write, old, new, **options):
    files = [
        write(f"{n}.jsonl", [{"id": i, **row} for i, row in enumerate(rows)]) for n, rows in (("o", old), ("n", new))
    ]
    return compare_files(*files, Options(**options))


@pytest.mark.parametrize("margin", [0.0, 0.1, 1.0, 5.0])
def test_right_or_wrong_knows_no_margin(write, margin):
    old, new = [{"correct": True}, {"correct": True}], [{"correct": False}, {"correct": True}]
    comparison = two(write, old, new, margin=margin).comparison
    assert comparison.negative_flips == 1
    assert comparison.margin == 0.0
    assert (comparison.nfr_given_correct.k, comparison.nfr_given_correct.n) == (1, 2)
    assert comparison.severity is None


def test_scores_of_zero_and_one_flip_under_the_usual_margin(write):
    comparison = two(write, [{"score": 1}], [{"score": 0}]).comparison
    assert comparison.negative_flips == 1
    assert comparison.nfr_given_correct is None


def test_the_severity_is_the_mean_drop_beyond_the_margin_and_the_tail_of_the_flips(write):
    old = [{"score": 1.0}, {"score": 1.0}, {"score": 0.0}, {"score": None}]
    new = [{"score": 0.0}, {"score": 0.5}, {"score": 1.0}, {"score": 0.0}]
    severity = two(write, old, new, margin=0.25).comparison.severity
    observed = {"mean": 1.0 / 3, "mean_flip": 0.5, "median": 0.25, "p90": 0.75, "max": 0.75}
    assert {name: severity[name] for name in observed} == observed
    assert severity["bounds"].keys() == observed.keys() - {"max"}
    assert all(told["lower"] <= observed[name] <= told["upper"] for name, told in severity["bounds"].items())
    assert severity["worst"] == 0.75


def test_an_answer_of_several_categories_counts_in_each_slice_and_p_values_are_adjusted(write):
    old = [{"correct": True, "category": ["a", "b"]}] * 10 + [{"correct": True, "category": "b"}] * 10
    new = [{"correct": False}] * 10 + [{"correct": True}] * 9 + [{"correct": None}]
    slices = {part.name: part for part in two(write, old, new).comparison.slices}
    assert [(part.n, part.nfr.k) for part in slices.values()] == [(10, 10), (19, 10)]
    assert slices["a"].p_adjusted == pytest.approx(2 * stats.mcnemar(10, 0))


def test_a_slice_of_ungraded_pairs_only_is_still_shown(write):
    (part,) = two(write, [{"score": None, "category": "a"}], [{"score": 1}]).comparison.slices
    assert (part.n, part.nfr.value, part.p_adjusted) == (0, None, None)


def test_what_the_reader_must_know_stands_beside_the_verdict(write):
    lines = b'{"id": 1, "score": 1, "prompt": "a", "cluster": "k"}\n{"id": 1, "score": 2}\n{oops\n'
    old = write("old.jsonl", lines + b'{"id": 2, "score": 1, "cluster": "k"}\n')
    new = write("new.jsonl", [{"id": 1, "score": 0, "prompt": "b"}, {"id": 2, "score": 1}])
    comparison = compare_files(old, new, Options(skip_bad=1, duplicates="first")).comparison
    assert comparison.provenance["notes"] == [
        "Malformed lines skipped: 1.",
        "Duplicate rows left out: 1.",
        "Prompts that differ between the runs: 1.",
        "Pairs that share a cluster with another, so clusters set the bound: 1.",
    ]
    assert comparison.reason.endswith(" ".join(comparison.provenance["notes"]))
    assert comparison.provenance["skipped"] == 1
    assert "old.jsonl:3" in comparison.provenance["skipped_lines"][0]


@pytest.mark.parametrize("text", ["the same", ""])
def test_identical_answers_that_were_graded_apart_are_no_silent_ties(write, text):
    old, new = ([{"correct": right, "completion": text}] * 3 for right in (True, False))
    comparison = two(write, old, new).comparison
    assert comparison.negative_flips == 0
    assert comparison.reason.endswith("Byte-identical answers that were graded apart, which are ties here: 3.")


def test_a_judge_asked_in_one_order_is_believed_and_said_so(write):
    verdict = {"order": "old_first", "winner": "old"}
    path = write("j.jsonl", [{"id": 1, "old": {}, "new": {}, "verdicts": [verdict]}])
    comparison = compare_files(path, None, Options()).comparison
    assert comparison.negative_flips == 1
    assert comparison.provenance["notes"] == [
        "Pairs judged in one order only, so that position bias is not controlled: 1."
    ]


def test_the_provenance_tells_what_was_read_and_how(write):
    old, new = write("old.jsonl", [{"id": 1, "score": 1}]), write("new.jsonl", [{"id": 1, "score": 1}])
    command = ["flipguard", "compare", "a b"]
    provenance = compare_files(old, new, Options(max_nfr=0.25), command=command).comparison.provenance
    assert provenance["command"] == "flipguard compare 'a b'"
    assert [entry["path"] for entry in provenance["inputs"]] == [str(old), str(new)]
    assert provenance["inputs"][0]["sha256"] == hashlib.sha256(old.read_bytes()).hexdigest()
    assert provenance["inputs"][0]["format"] == "scores"
    assert (provenance["max_nfr"], provenance["metric"]) == (0.25, "score")
    assert provenance["created"].endswith("+00:00")


def test_two_runs_of_one_name_are_told_apart_by_their_files(write):
    files = [write(f"{name}.jsonl", [{"id": 1, "score": 1, "model": "m"}]) for name in ("a", "b")]
    comparison = compare_files(*files, Options()).comparison
    assert (comparison.old, comparison.new) == (str(files[0]), str(files[1]))


def test_one_file_with_one_side_asks_for_the_other(write):
    with pytest.raises(FlipGuardError, match="holds one model's answers"):
        compare_files(write("old.jsonl", [{"id": 1, "score": 1}]), None, Options())


def test_a_file_of_both_sides_is_compared_alone(write):
    both, one = write("j.jsonl", [{"id": 1, "old": {"score": 1}, "new": {"score": 1}}]), [{"id": 1, "score": 1}]
    for files in ((both, write("o.jsonl", one)), (write("o.jsonl", one), both)):
        with pytest.raises(FlipGuardError, match=r"j\.jsonl: already holds both"):
            compare_files(*files, Options())


@pytest.mark.parametrize(
    "wrong",
    [
        {"margin": -0.1},
        {"margin": float("nan")},
        {"max_nfr": 5.0},
        {"max_unmatched": -1.0},
        {"max_invalid": float("nan")},
        {"alpha": 0.0},
        {"alpha": 1e-17},
        {"skip_bad": -1},
        {"skip_bad": 2**63},
        {"min_slice": 2**63},
        {"seed": -(2**63)},
        {"duplicates": "frist"},
        {"metric": " "},
        {"format": "score"},
    ],
)
def test_an_impossible_option_is_refused_by_name(wrong):
    with pytest.raises(FlipGuardError, match=rf"--{next(iter(wrong)).replace('_', '-')}.*(?i:choose)"):
        Options(**wrong)


def test_comparing_needs_neither_torch_nor_numpy_nor_scipy(write):
    old = write("old.jsonl", [{"id": 1, "score": 1}])
    code = (
        "import sys; from pathlib import Path; from flipguard.evaluate.compare import *;"
        "compare_files(Path(sys.argv[1]), Path(sys.argv[1]), Options());"
        "print([name for name in ('torch', 'numpy', 'scipy', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, old], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def gsm8k():
    with gzip.open(DATA / "gsm8k" / "solutions_of_4_systems.jsonl.gz") as file:
        return [orjson.loads(line) for line in file]


@needs_data
@pytest.mark.parametrize(
    "systems",
    [
        ("6b_finetuning", "6b_verification"),
        ("175b_finetuning", "175b_verification"),
        ("6b_finetuning", "175b_finetuning"),
        ("6b_verification", "175b_verification"),
    ],
)
def test_the_flips_of_four_gsm8k_systems_are_those_an_independent_count_found(write, systems):
    fact = orjson.loads((DATA / "gsm8k" / "reference_facts.json").read_bytes())["->".join(systems)]
    files = [
        write(
            f"{system}.jsonl",
            [
                {"id": i, "correct": row[system]["is_correct"], "category": str(row["ground_truth"].count("<<"))}
                for i, row in enumerate(gsm8k())
            ],
        )
        for system in systems
    ]
    comparison = compare_files(*files, Options()).comparison
    assert (comparison.n, comparison.negative_flips, comparison.positive_flips) == (fact["n"], fact["nf"], fact["pf"])
    assert comparison.nfr.value == pytest.approx(fact["nfr"])
    assert comparison.nfr_given_correct.n == round(fact["acc_old"] * fact["n"])
    assert comparison.net.value == pytest.approx(fact["acc_new"] - fact["acc_old"])
    assert (comparison.means.old, comparison.means.new) == pytest.approx((fact["acc_old"], fact["acc_new"]))
    assert comparison.net.p_value == pytest.approx(fact["mcnemar_exact_p"])
    discordant = fact["nf"] + fact["pf"]
    wald = 1.96 * math.sqrt(discordant - (fact["pf"] - fact["nf"]) ** 2 / fact["n"]) / fact["n"]
    ends = comparison.net.value - wald, comparison.net.value + wald
    assert (comparison.net.low, comparison.net.high) == pytest.approx(ends, abs=0.001)
    counted = {part.name: (part.n, part.negative_flips, part.positive_flips) for part in comparison.slices}
    assert counted == {steps: (said["n"], said["nf"], said["pf"]) for steps, said in fact["by_steps"].items()}
    assert comparison.net.p_value == pytest.approx(fact["mcnemar_exact_p"], rel=1e-6)
    assert {
        part.name: {"n": part.n, "nf": part.negative_flips, "pf": part.positive_flips} for part in comparison.slices
    } == fact["by_steps"]


@needs_data
def test_the_flips_of_phi_3_after_dpo_are_those_an_independent_count_found(write):
    first = {"model_1": "old", "model_2": "new", "tie": "tie", "error": "invalid"}
    lines = (DATA / "mt_bench" / "raw_phi3_gpt-4_pair.jsonl").read_bytes().splitlines()
    rows = [orjson.loads(line) for line in lines]
    judgments = [
        {
            "id": i,
            "old": {},
            "new": {},
            "verdicts": [
                {"order": "old_first", "winner": first[row["g1_winner"]]},
                {"order": "new_first", "winner": first[row["g2_winner"]]},
            ],
        }
        for i, row in enumerate(rows)
    ]
    comparison = compare_files(write("j.jsonl", judgments), None, Options(max_nfr=0.5)).comparison
    counted = (comparison.n, comparison.negative_flips, comparison.positive_flips, comparison.ties)
    assert counted == (73, 18, 20, 8)
    assert (comparison.inconsistent, comparison.invalid, comparison.verdict) == (27, 2, "invalid")
