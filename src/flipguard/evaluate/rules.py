"""A policy held against a comparison: one rule after the other, the worst of them is the verdict of the whole.

Bounds are one-sided. An update passes only where every rule does, which by itself errs with probability `alpha` at most
however many rules there are; each rule that fails may be wrong with that probability. Among the categories of a policy
both errors are shared out by Holm's procedure, so that it may also be said which of them passed and which failed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flipguard.errors import shown
from flipguard.evaluate import refusals
from flipguard.evaluate.bootstrap import Draw, cluster_of, quantiles, resample
from flipguard.evaluate.comparison import Comparison, Coverage, Decision, Pair, Rule
from flipguard.evaluate.gate import apart, decide, percent
from flipguard.evaluate.permutation import stream
from flipguard.evaluate.policy import Policy
from flipguard.evaluate.severity import severity_rules
from flipguard.evaluate.stats import lower_bound, upper_bound

WORST_FIRST: tuple[Decision, ...] = ("invalid", "fail", "inconclusive", "pass", "none")


@dataclass(frozen=True, slots=True)
class Share:
    """k of n pairs with its one-sided bounds at any error; `draws` are there where pairs share clusters."""

    k: int
    n: int
    draws: tuple[Draw, ...] = ()

    def upper(self, alpha: float) -> float:
        """The exact bound, or that over clusters where it is higher; 1 where `alpha` is finer than the draws."""
        exact = upper_bound(self.k, self.n, alpha)
        if not self.draws:
            return exact
        return max(exact, *quantiles(map(_worst, self.draws), 1.0 - alpha)) if self._resolve(alpha) else 1.0

    def lower(self, alpha: float) -> float:
        """The exact bound, or that over clusters where it is lower; 0 where `alpha` is finer than the draws."""
        exact = lower_bound(self.k, self.n, alpha)
        if not self.draws:
            return exact
        return min(exact, *quantiles((k / n for n, k, _, _ in self.draws), alpha)) if self._resolve(alpha) else 0.0

    def _resolve(self, alpha: float) -> bool:
        return alpha * (len(self.draws) + 1) >= 1.0


def share(groups: Sequence[tuple[int, int]], seed: int, name: str) -> Share:
    """The share over clusters of (pairs, how many of them count)."""
    k, n = sum(hits for _, hits in groups), sum(size for size, _ in groups)
    if n == len(groups):
        return Share(k, n)
    clusters = [(size, hits, 0) for size, hits in groups]
    return Share(k, n, tuple(resample(clusters, stream(seed, name))))


def held(policy: Policy, comparison: Comparison, pairs: Sequence[Pair]) -> tuple[Rule, ...]:
    """Every rule of `policy` with its verdict: the data first, then the rate, the categories and what is beside them.

    Args:
        policy: the limits.
        comparison: made with the margins, `alpha` and limits on the data that the policy asks for, which its
            provenance tells.
        pairs: what was compared.
    """
    return (
        *_data(comparison),
        *_rate(policy, comparison),
        *_slices(policy, comparison, pairs),
        *severity_rules(policy.severity, comparison),
        *_refusals(policy, comparison, pairs),
    )


def deciding(rules: Sequence[Rule]) -> Rule:
    """The first of the worst rules; where all pass, the first that is not about the data alone."""
    worst = min(rules, key=lambda rule: WORST_FIRST.index(rule.verdict)).verdict
    found = [rule for rule in rules if rule.verdict == worst]
    return next((rule for rule in found if rule.bound is not None), found[-1]) if worst == "pass" else found[0]


def spent(rejected: Sequence[Callable[[float], bool]], alpha: float) -> list[float]:
    """The error at which Holm's step-down procedure looks at each test last (Scand. J. Statist. 6, 1979).

    Args:
        rejected: for each test, whether it rejects at this error.
        alpha: error of all of them together.

    >>> spent([lambda a, p=p: p <= a for p in (0.01, 0.2, 0.02)], 0.05)
    [0.016666666666666666, 0.05, 0.025]
    """
    errors, left = [alpha] * len(rejected), set(range(len(rejected)))
    while left:
        error = alpha / len(left)
        for index in left:
            errors[index] = error
        done = {index for index in left if rejected[index](error)}
        if not done:
            break
        left -= done
    return errors


def _worst(draw: Draw) -> float:
    """The share in a resample if every pair of the added cluster counts."""
    n, k, _, added = draw
    return (k + added) / n


def _data(comparison: Comparison) -> Iterator[Rule]:
    alignment, total = comparison.alignment, comparison.n + comparison.invalid
    unmatched = alignment.only_old + alignment.only_new
    yield _allowed(
        "unmatched prompts",
        f"{unmatched:,} of {unmatched + alignment.matched:,} prompts have no partner in the other run",
        alignment.unmatched_share,
        comparison.provenance["max_unmatched"],
    )
    yield _allowed(
        "invalid pairs",
        f"{comparison.invalid:,} of {total:,} pairs could not be graded",
        comparison.invalid / total if total else 0.0,
        comparison.provenance["max_invalid"],
    )
    for run in comparison.companions:
        yield from _data_beside(run, comparison.provenance)


def _data_beside(run: Coverage, allowed: Mapping[str, Any]) -> Iterator[Rule]:
    fit, total = run.alignment, run.valid + run.invalid
    unmatched = fit.only_old + fit.only_new
    yield _allowed(
        f"unmatched prompts, {run.option}",
        f"{unmatched:,} of {unmatched + fit.matched:,} prompts have no partner in --{run.option}",
        fit.unmatched_share,
        allowed["max_unmatched"],
    )
    yield _allowed(
        f"invalid pairs, {run.option}",
        f"{run.invalid:,} of {total:,} pairs of --{run.option} could not be graded",
        run.invalid / total if total else 0.0,
        allowed["max_invalid"],
    )


def _allowed(name: str, counted: str, observed: float, limit: float) -> Rule:
    verdict: Decision = "invalid" if observed > limit else "pass"
    printed, most = apart(observed, limit)
    return Rule(name, verdict, f"{counted} ({printed}, {most} are allowed).", observed, None, limit)


def _rate(policy: Policy, comparison: Comparison) -> Iterator[Rule]:
    if policy.limit is None:
        return
    if policy.estimand == "excess":
        yield _excess(policy.limit, comparison)
        return
    verdict, reason = decide(comparison, max_nfr=policy.limit, max_unmatched=1.0, max_invalid=1.0)
    yield Rule("negative flip rate", verdict, reason, comparison.nfr.value, comparison.upper, policy.limit)


def _excess(limit: float, comparison: Comparison) -> Rule:
    """The excess over the floor."""
    name, told = "excess negative flip rate", (comparison.floor or {}).get("excess") or {}
    if told.get("value") is None:
        return Rule(name, "invalid", "No prompt is valid in the update and in the floor.", None, None, limit)
    counted = (
        f"On {told['n']:,} prompts the update adds {100 * told['value']:+.2f} points to the negative flips of the old "
        f"model against itself"
    )
    verdict, words = _placed(told["lower"], told["upper"], limit, comparison.alpha)
    return Rule(name, verdict, f"{counted}; {words}.", told["value"], told["upper"], limit)


def _placed(low: float, high: float, limit: float, alpha: float) -> tuple[Decision, str]:
    """Where the bounds of a share lie, seen from its limit."""
    sure = f"with {100 * (1 - alpha):.4g} % confidence"
    if high <= limit:
        bound, most = apart(high, limit)
        return "pass", f"{sure} at most {bound}, within the limit of {most}"
    if low > limit:
        bound, most = apart(low, limit)
        return "fail", f"{sure} at least {bound}, above the limit of {most}"
    bound, most = apart(high, limit)
    return "inconclusive", f"{sure} at least {percent(low)} and at most {bound}, and the limit of {most} lies between"


def _slices(policy: Policy, comparison: Comparison, pairs: Sequence[Pair]) -> Iterator[Rule]:
    """The categories of the policy; those large enough share the error, size being no outcome."""
    seed = comparison.provenance["seed"]
    shares = {name: share(_groups(pairs, name), seed, f"slice {name}") for name in policy.slices}
    names = [name for name, part in policy.slices.items() if shares[name].n >= part.min_n]
    tests = [(shares[name], policy.slices[name].limit) for name in names]
    passing = spent([_passes(*test) for test in tests], comparison.alpha)
    failing = spent([_fails(*test) for test in tests], comparison.alpha)
    errors = dict(zip(names, zip(passing, failing, strict=True), strict=True))
    known = {part.name for part in comparison.slices}
    for name, part in policy.slices.items():
        if name not in known:
            reason = f"The category {shown(name)}, which the policy limits, is in no pair."
            yield Rule(f"slice {name}", "invalid", reason, None, None, part.limit)
        else:
            yield _slice(name, shares[name], (part.limit, part.min_n), errors.get(name))


def _passes(part: Share, limit: float) -> Callable[[float], bool]:
    return lambda error: part.upper(error) <= limit


def _fails(part: Share, limit: float) -> Callable[[float], bool]:
    return lambda error: part.lower(error) > limit


def _slice(name: str, part: Share, demanded: tuple[float, int], errors: tuple[float, float] | None) -> Rule:
    limit, least = demanded
    observed = part.k / part.n if part.n else None
    counted = f"In {shown(name)} {part.k:,} of {part.n:,} answers got worse"
    if errors is None:
        reason = f"{counted}: fewer than the {least:,} valid pairs that the policy asks for, too few to tell."
        return Rule(f"slice {name}", "inconclusive", reason, observed, None, limit)
    high, low = part.upper(errors[0]), part.lower(errors[1])
    verdict, words = _placed(low, high, limit, errors[1] if low > limit else errors[0])
    reason = f"{counted} ({percent(observed or 0.0)}); {words}."
    return Rule(f"slice {name}", verdict, reason, observed, high, limit)


def _groups(pairs: Sequence[Pair], name: str) -> list[tuple[int, int]]:
    """The valid pairs of a category by cluster: how many, and how many of them got worse."""
    groups: dict[Hashable, tuple[int, int]] = {}
    for pair in pairs:
        if name in pair.categories and pair.outcome != "invalid":
            size, hits = groups.get(cluster_of(pair), (0, 0))
            groups[cluster_of(pair)] = size + 1, hits + (pair.outcome == "negative_flip")
    return list(groups.values())


def _refusals(policy: Policy, comparison: Comparison, pairs: Sequence[Pair]) -> Iterator[Rule]:
    if policy.refusals is None:
        return
    name, limit, found = "refusals", policy.refusals, comparison.refusals
    if found is None:
        reason = "Refusals are not known: the files hold no answers."
        yield Rule(name, "invalid", reason, None, None, limit)
        return
    counted = found.refuses_now
    part = Share(counted.k, counted.n)
    if comparison.clustered is not None:
        part = share(_refusing(pairs, comparison.provenance["refusal_detector"]), comparison.clustered.seed, name)
    low, high = part.lower(comparison.alpha), part.upper(comparison.alpha)
    verdict, words = _placed(low, high, limit, comparison.alpha)
    reason = f"{part.k:,} of {part.n:,} prompts were answered before and are refused now; {words}."
    yield Rule(name, verdict, reason, counted.value, high, limit)


def _refusing(pairs: Sequence[Pair], detector: str | None) -> list[tuple[int, int]]:
    """The pairs of answers by cluster: how many, and in how many only the new one is a refusal."""
    groups: dict[Hashable, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(cluster_of(pair), []).append(pair)
    counts = [refusals.count(group, detector) for group in groups.values()]
    return [(count.n, count.refuses_now.k) for count in counts if count is not None]
