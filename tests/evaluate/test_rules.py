"""The rules of a policy: each of its verdicts, the worst of them, and what is kept of the policy."""

import hashlib
import random
from xml.etree import ElementTree

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flipguard.cli import main
from flipguard.errors import PolicyError
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.difference import tango
from flipguard.evaluate.report import markdown
from flipguard.evaluate.rules import Share, deciding, share, spent
from flipguard.evaluate.stats import at_least, at_most, holm, lower_bound, upper_bound


@pytest.fixture
def ruled(write):
    """Compare `flips` broken prompts of `n` by a policy; `rows` changes a row of the new run."""

    def run(policy, flips=0, n=400, rows=lambda _: {}, **options):
        old = [{"id": i, "score": 1.0, "category": ["even", "odd"][i % 2]} for i in range(n)]
        new = [{"id": i, "score": 0.5 if i < flips else 1.0, "completion": f"Answer {i}."} for i in range(n)]
        old = [{**row, "completion": f"Old {row['id']}."} | rows(row["id"]).get("old", {}) for row in old]
        new = [row | rows(row["id"]).get("new", {}) for row in new]
        path = write("p.yaml", policy.encode())
        floor = write("floor.jsonl", [{**row, "completion": f"Again {row['id']}."} for row in old])
        files = write("old.jsonl", old), write("new.jsonl", new)
        options |= {"floor": floor} if "excess" in policy else {}
        return compare_files(*files, Options(policy=path, **options)).comparison

    return run


def verdicts(comparison):
    return {rule.name: rule.verdict for rule in comparison.rules}


DATA = {"unmatched prompts": "pass", "invalid pairs": "pass"}


@pytest.mark.parametrize(("flips", "verdict"), [(5, "pass"), (20, "inconclusive"), (60, "fail")])
@pytest.mark.parametrize(
    ("policy", "name"),
    [("limit: 0.05", "negative flip rate"), ("{limit: 0.05, estimand: excess}", "excess negative flip rate")],
)
def test_the_rate_and_its_excess_are_held_by_their_bounds(ruled, policy, name, flips, verdict):
    comparison = ruled(policy, flips)
    floor = {f"{name}, floor": "pass" for name in DATA} if "excess" in policy else {}
    assert verdicts(comparison) == {**DATA, **floor, name: verdict}
    assert comparison.verdict == verdict
    rule = comparison.rules[-1]
    assert comparison.reason == rule.reason
    assert (rule.observed, rule.limit) == (flips / 400, 0.05)
    assert (rule.bound <= 0.05) == (verdict == "pass")


def test_a_category_is_held_by_its_own_limit_and_too_small_a_one_cannot_tell(ruled):
    comparison = ruled("slices: {even: {limit: 0.05}, odd: {limit: 0.3, min_n: 201}}", 100)
    assert verdicts(comparison) == {**DATA, "slice even": "fail", "slice odd": "inconclusive"}
    assert comparison.verdict == "fail"
    assert comparison.reason.startswith(
        "In 'even' 50 of 200 answers got worse (25.00 %); with 95 % confidence at least"
    )
    assert "fewer than the 201 valid pairs that the policy asks for" in comparison.rules[-1].reason
    assert verdicts(ruled("slices: {even: {limit: 0.05}}", 4))["slice even"] == "pass"
    assert verdicts(ruled("slices: {even: {limit: 0.05}}", 20))["slice even"] == "inconclusive"


def test_pairs_of_one_cluster_count_for_less_in_a_category_too(ruled):
    policy = "slices: {even: {limit: 0.06}}"
    alone = ruled(policy, 10)
    together = ruled(policy, 10, rows=lambda i: {"old": {"cluster": str(i // 20)}})
    assert (alone.verdict, together.verdict) == ("pass", "inconclusive")
    assert alone.rules[-1].observed == together.rules[-1].observed == 5 / 200


def test_a_category_that_does_not_occur_is_invalid_and_said_so(ruled):
    comparison = ruled("slices: {evne: {limit: 0.5}, even: {limit: 0.5}}")
    assert verdicts(comparison) == {**DATA, "slice evne": "invalid", "slice even": "pass"}
    assert (comparison.verdict, comparison.reason) == (
        "invalid",
        "The category 'evne', which the policy limits, is in no pair.",
    )


def test_severity_is_held_by_its_bounds_and_a_worst_flip_as_seen(ruled):
    policy = "severity: {max_mean: 0.1, max_p90: 0.3, max_worst: 0.4, max_mean_flip: 0.4}"
    comparison = ruled(policy, 4)
    assert verdicts(comparison) == DATA | dict.fromkeys(
        ("severity mean", "severity max", "severity mean_flip"), "pass"
    ) | {"severity p90": "fail"}
    assert (
        "by 0.4 (90 % quantile of flips); with 95 % confidence at least 0.4, above the limit of 0.3."
        in comparison.reason
    )
    assert ruled(policy, 0).verdict == "pass"  # nothing fell
    worst = next(rule for rule in comparison.rules if rule.name == "severity max")
    assert worst.reason.endswith(
        "within the limit of 0.4; with 95 % confidence at most 0.746 % of prompts fall further."
    )


@pytest.mark.parametrize(
    ("limit", "verdict"), [(0.05, "pass"), (0.022, "inconclusive"), (0.018, "inconclusive"), (0.01, "fail")]
)
def test_a_mean_severity_near_its_limit_is_inconclusive(ruled, limit, verdict):
    """Twenty flips of 0.4 among 400 pairs: 0.02 on average."""
    comparison = ruled(f"severity: {{max_mean: {limit}}}", 20)
    assert verdicts(comparison) == {**DATA, "severity mean": verdict}
    rule = comparison.rules[-1]
    assert rule.observed == pytest.approx(0.02)
    assert rule.bound == comparison.severity["bounds"]["mean"]["upper"] > 0.02


def test_a_few_shallow_flips_do_not_tell_how_deep_the_next_one_is(ruled):
    def rows(number):
        return {"new": {"score": 0.8}} if number < 3 else {"new": {"score": 0.0}} if number == 3 else {}

    comparison = ruled("severity: {max_mean_flip: 0.5}", rows=rows)
    assert verdicts(comparison) == {**DATA, "severity mean_flip": "inconclusive"}


def test_the_excess_fails_by_its_one_sided_lower_bound(ruled):
    told = ruled("{limit: 0.05, estimand: excess}", 28)
    excess = told.floor["excess"]
    assert excess["low"] < 0.05 < excess["lower"]
    assert told.verdict == "fail"
    assert excess["lower"] == pytest.approx(tango(28, 0, 400, 0.1)[0])


def test_severity_without_scores_is_invalid(write):
    run = write("run.jsonl", [{"id": i, "correct": True} for i in range(200)])
    again = write("again.jsonl", [{"id": i, "correct": True} for i in range(200)])
    policy = write("p.yaml", b"severity: {max_mean: 1}\nrefusals: {limit: 0.1}")
    comparison = compare_files(run, again, Options(policy=policy)).comparison
    assert verdicts(comparison) == {**DATA, "severity mean": "invalid", "refusals": "invalid"}
    assert "no valid pair with scores" in comparison.reason


@pytest.mark.parametrize(("refused", "verdict"), [(3, "pass"), (20, "inconclusive"), (60, "fail")])
@pytest.mark.parametrize("shared", [False, True])
def test_new_refusals_are_held_by_their_bounds_over_clusters_too(ruled, refused, verdict, shared):
    def rows(number):
        new = {"completion": "I'm sorry, but I can't help with that."} if number < refused else {}
        return {"old": {"cluster": str(number // 2)} if shared else {}, "new": new}

    comparison = ruled("refusals: {limit: 0.05}", rows=rows)
    assert (comparison.clustered is not None) == shared
    assert verdicts(comparison) == {**DATA, "refusals": verdict}
    assert f"{refused} of 400 prompts were answered before and are refused now" in comparison.reason
    exact = upper_bound(refused, 400)
    assert comparison.rules[-1].bound > exact if shared else comparison.rules[-1].bound == exact


def test_data_beyond_their_limits_are_invalid_before_any_failure(ruled):
    def broken(number):
        return {"new": {"score": None} if number < 8 else {}}

    comparison = ruled("{limit: 0.05, max_invalid: 0.01}", 200, rows=broken)
    assert verdicts(comparison) == {**DATA, "invalid pairs": "invalid", "negative flip rate": "fail"}
    assert comparison.reason == "8 of 400 pairs could not be graded (2.00 %, 1.00 % are allowed)."
    moved = ruled("{limit: 0.05, max_unmatched: 0}", rows=lambda i: {"new": {"id": 1000} if i == 3 else {}})
    assert moved.reason == "2 of 401 prompts have no partner in the other run (0.50 %, 0.00 % are allowed)."
    assert ruled("{limit: 0.05, max_unmatched: 0.1}", rows=lambda i: {"new": {"id": 999 + i} if i < 9 else {}})


def test_the_worst_rule_is_the_verdict(ruled):
    order = ["pass", "inconclusive", "fail", "invalid"]
    worse = ["limit: 0.5", "limit: 0.05", "severity: {max_worst: 0}", "slices: {none: {limit: 1}}"]
    for number in range(4):
        comparison = ruled("\n".join(worse[: number + 1]).replace("limit: 0.5\nlimit", "limit"), 20)
        assert comparison.verdict == order[number]
        assert deciding(comparison.rules).verdict == comparison.verdict


def test_the_policy_is_kept_whole_with_its_hash_and_decides_alpha(ruled):
    text = "limit: 0.05 # five\nalpha: 0.01\n"
    comparison = ruled(text, 5)
    kept = comparison.provenance["policy"]
    assert kept["content"] == text
    assert kept["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert (comparison.alpha, comparison.provenance["max_nfr"]) == (0.01, 0.05)
    assert comparison.rules[-1].bound == upper_bound(5, 400, 0.01)


@pytest.mark.parametrize(
    ("policy", "options", "told"),
    [
        ("limit: 0.05", {"max_nfr": 0.06}, r"limit: says 0\.05, --max-nfr says 0\.06\. Leave the option out"),
        ("{limit: 0.05, alpha: 0.1}", {"alpha": 0.2}, r"alpha: says 0\.1, --alpha says 0\.2"),
        ("{limit: 0.05, max_invalid: 0.1}", {"max_invalid": 0.2}, "max_invalid: says"),
        ("{limit: 0.05, max_unmatched: 0.1}", {"max_unmatched": 0.2}, "max_unmatched: says"),
        ("refusals: {limit: 0.1}", {"max_nfr": 0.05}, "sets no limit on the negative flip rate, --max-nfr says"),
        ("limit: 0.05", {"max_nfr": 0.05, "sequential": True}, "hold for one look. Leave out --sequential, or"),
        ("{limit: 0.05, estimand: excess}", {"floor": None}, "estimand: 'excess' .* Give --floor A.jsonl"),
    ],
)
def test_an_option_that_contradicts_the_policy_is_one_clear_error(write, policy, options, told):
    run = write("run.jsonl", [{"id": 1, "score": 1}])
    with pytest.raises(PolicyError, match=told) as raised:
        compare_files(run, run, Options(policy=write("p.yaml", policy.encode()), **options))
    assert "\n" not in str(raised.value)


def test_an_option_that_says_the_same_is_no_contradiction_and_a_typed_default_is(ruled, write, capsys):
    assert ruled("{limit: 0.05, alpha: 0.1}", max_nfr=0.05, alpha=0.1).verdict == "pass"
    files = [str(write(name, [{"id": 1, "score": 1}])) for name in ("a.jsonl", "b.jsonl")]
    policy = str(write("p.yaml", b"{limit: 1, alpha: 0.1}"))
    out = str(write("a.jsonl", [{"id": 1, "score": 1}]).parent / "report")
    assert main(["compare", *files, "--policy", policy, "--out", out]) == 0
    assert main(["compare", *files, "--policy", policy, "--out", out, "--alpha=0.05"]) == 2
    assert "alpha: says 0.1, --alpha says 0.05." in capsys.readouterr().err


def test_every_view_lists_every_rule_and_junit_has_a_case_for_each(write, tmp_path, capsys):
    name = "<b>a|b</b>"
    old, new = (
        write(f"{run}.jsonl", [{"id": i, "score": 1 - (i < 5) * last, "category": name} for i in range(200)])
        for run, last in (("old", 0), ("new", 1))
    )
    limits = {name: {"limit": 0.01}, "none": {"limit": 1}}
    policy = write("p.yaml", orjson.dumps({"limit": 0.5, "slices": limits, "severity": {"max_mean": 1}}))
    out = tmp_path / "report"
    assert main(["compare", str(old), str(new), "--policy", str(policy), "--out", str(out)]) == 4
    printed = capsys.readouterr().out
    views = [printed, (out / "report.md").read_text(), (out / "report.html").read_text()]
    for view in views:
        assert "The rules of the policy" in view
        for rule in ("✓ unmatched prompts", "✓ negative flip rate", "! slice none", "✓ severity mean"):
            assert rule in view
        assert view.index("! slice none") < view.index("✓ negative flip rate")
    assert all(name not in view for view in views[1:])
    assert max(map(len, printed.splitlines()[:-1])) <= 80
    suite = ElementTree.parse(out / "junit.xml").getroot()[0]
    kinds = {case.get("name"): case[0].tag for case in suite}
    assert kinds == {
        "unmatched prompts": "system-out",
        "invalid pairs": "system-out",
        "negative flip rate": "system-out",
        f"slice {name}": "failure" if "✗ slice" in printed else "skipped",
        "slice none": "error",
        "severity mean": "system-out",
    }
    document = orjson.loads((out / "comparison.json").read_bytes())
    assert {rule["name"] for rule in document["rules"]} == set(kinds)


def test_many_rules_with_long_names_leave_the_comment_within_its_bound(ruled):
    limits = {f"{'|*<x> ' * 50}{number}": {"limit": 0.1} for number in range(120)}
    comparison = ruled(orjson.dumps({"slices": limits}).decode())
    assert len(comparison.rules) == 122
    text = markdown.render(comparison, [])
    assert len(text) < markdown.MAX_CHARACTERS
    assert "102 more rules in comparison.json" in text


TESTS = st.lists(st.tuples(st.integers(0, 12), st.integers(20, 300), st.floats(0.01, 0.5)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(tests=TESTS, alpha=st.floats(0.01, 0.2))
def test_bounds_at_the_error_spent_decide_as_holms_adjusted_p_values_do(tests, alpha):
    parts = [(Share(k, n), limit) for k, n, limit in tests]
    up = spent([lambda a, p=p, m=m: p.upper(a) <= m for p, m in parts], alpha)
    down = spent([lambda a, p=p, m=m: p.lower(a) > m for p, m in parts], alpha)
    passes = holm([at_most(k, n, limit) for k, n, limit in tests])
    fails = holm([at_least(k, n, limit) for k, n, limit in tests])
    for index, (part, limit) in enumerate(parts):
        if abs(passes[index] - alpha) > 1e-9:
            assert (part.upper(up[index]) <= limit) == (passes[index] <= alpha)
        if abs(fails[index] - alpha) > 1e-9:
            assert (part.lower(down[index]) > limit) == (fails[index] <= alpha)


def test_bounds_over_clusters_are_never_tighter_than_exact_ones():
    rng = random.Random(0)
    groups = [(4, rng.choice([0, 0, 0, 4])) for _ in range(30)]
    part = share(groups, 0, "slice a")
    assert part.upper(0.05) > upper_bound(part.k, part.n)
    assert part.lower(0.05) < lower_bound(part.k, part.n)
    assert (part.lower(0.0004), part.upper(0.0004)) == (0.0, 1.0)  # finer than 1,999 draws can tell
    assert share([(1, 0)] * 9, 0, "slice a").draws == ()
