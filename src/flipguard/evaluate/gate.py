"""Comparison x limits -> verdict and the sentence that decided it. A gate is a non-inferiority test on the NFR."""

from __future__ import annotations

from flipguard.evaluate.bootstrap import clusters_to_decide
from flipguard.evaluate.comparison import Alignment, Comparison, Coverage, Decision
from flipguard.evaluate.sequential import Sequential
from flipguard.evaluate.stats import lower_bound, prompts_to_decide

EXIT_CODES: dict[Decision, int] = {"pass": 0, "none": 0, "fail": 1, "inconclusive": 3, "invalid": 4}


def decide(
    comparison: Comparison, *, max_nfr: float | None, max_unmatched: float = 0.05, max_invalid: float = 0.02
) -> tuple[Decision, str]:
    """Whether the update may go out.

    Args:
        comparison: what was counted; its own verdict is not looked at.
        max_nfr: the limit on the rate of negative flips; None asks for no verdict.
        max_unmatched: the largest share of prompts without a partner in the other run.
        max_invalid: the largest share of matched pairs that could not be graded.

    Returns:
        `invalid` where the data cannot be trusted, then `none` without a limit; else `pass` where the one-sided upper
        bound of the NFR is within the limit, `fail` where the lower bound is above it, `inconclusive` between. Where
        pairs share clusters the bounds are those over clusters: Clopper-Pearson takes pairs for independent, and would
        let an update pass at the limit far more often than `alpha` says. A
        sequential comparison has decided already; there, `inconclusive` is to continue.
    """
    trouble = _trouble(comparison, max_unmatched, max_invalid)
    if trouble is not None:
        return "invalid", trouble
    if comparison.sequential is not None:
        return _early(comparison.sequential, comparison.n)
    counted = f"{comparison.nfr.k:,} of {comparison.nfr.n:,} answers got worse ({percent(comparison.nfr.value or 0.0)})"
    if max_nfr is None:
        return "none", f"{counted}; no limit was asked for, --max-nfr sets one."
    sure = f"with {100 * (1 - comparison.alpha):g} % confidence"
    upper, lower = comparison.upper, _lower(comparison)
    if upper <= max_nfr:
        bound, limit = apart(upper, max_nfr)
        return "pass", f"{counted}; {sure} at most {bound} do, within the limit of {limit}."
    if lower > max_nfr:
        bound, limit = apart(lower, max_nfr)
        return "fail", f"{counted}; {sure} at least {bound} do, above the limit of {limit}."
    bound, limit = apart(upper, max_nfr)
    return "inconclusive", (
        f"{counted}; {sure} at least {percent(lower)} and at most {bound} do, each bound taken alone, "
        f"and the limit of {limit} lies between: {_more(comparison, max_nfr)}."
    )


def percent(share: float, digits: int = 2) -> str:
    """A share as it is printed: 0.0485 is "4.85 %"."""
    return f"{100.0 * share:.{digits}f} %"


def apart(one: float, other: float) -> tuple[str, str]:
    """Two shares printed with as many digits as it takes to see which is larger."""
    digits = next((d for d in range(2, 12) if one == other or percent(one, d) != percent(other, d)), 12)
    return percent(one, digits), percent(other, digits)


def _early(course: Sequential, n: int) -> tuple[Decision, str]:
    counted = f"{course.k:,} of the first {course.n:,} answers got worse" if course.n else "No pair was judged yet"
    if course.verdict == "continue":
        more = "neither a pass nor a fail is sure yet, judge more"
        return "inconclusive", f"{counted}; {more}. One may look again after every pair."
    than = "fewer" if course.verdict == "pass" else "more"
    return course.verdict, (
        f"{counted}: enough to be sure, with {100 * (1 - course.alpha):g} % confidence and however often one looked, "
        f"that {than} than {percent(course.limit)} do. The {n - course.n:,} pairs after them do not change that."
    )


def _trouble(comparison: Comparison, max_unmatched: float, max_invalid: float) -> str | None:
    told = _too_many_unmatched(comparison.alignment, max_unmatched, "in the other run", "new")
    if told is not None:
        return told
    total = comparison.n + comparison.invalid
    if total and comparison.invalid / total > max_invalid:
        shares = apart(comparison.invalid / total, max_invalid)
        return (
            f"{comparison.invalid:,} of {total:,} pairs could not be graded "
            f"({shares[0]}, --max-invalid allows {shares[1]})."
        )
    if comparison.n == 0:
        return "There is no valid pair to compare."
    return next(filter(None, (_beside(run, max_unmatched, max_invalid) for run in comparison.companions)), None)


def _too_many_unmatched(alignment: Alignment, allowed: float, where: str, other: str) -> str | None:
    unmatched, share = alignment.only_old + alignment.only_new, alignment.unmatched_share
    if share <= allowed:
        return None
    shares = apart(share, allowed)
    return (
        f"{unmatched:,} of {unmatched + alignment.matched:,} prompts have no partner {where} "
        f"({shares[0]}, --max-unmatched allows {shares[1]}): only in old {alignment.only_old:,}, "
        f"only in {other} {alignment.only_new:,}."
    )


def _beside(run: Coverage, max_unmatched: float, max_invalid: float) -> str | None:
    """What is wrong with a further run: it is held against the same limits as the runs themselves."""
    told = _too_many_unmatched(run.alignment, max_unmatched, f"in --{run.option}", run.option)
    total = run.valid + run.invalid
    if told is None and total and run.invalid / total > max_invalid:
        shares = apart(run.invalid / total, max_invalid)
        return (
            f"{run.invalid:,} of {total:,} pairs of --{run.option} could not be graded "
            f"({shares[0]}, --max-invalid allows {shares[1]})."
        )
    return told


def _lower(comparison: Comparison) -> float:
    if comparison.clustered is not None:
        return comparison.clustered.nfr.lower
    return lower_bound(comparison.nfr.k, comparison.nfr.n, comparison.alpha)


def _more(comparison: Comparison, max_nfr: float) -> str:
    """How much more would decide."""
    nfr, told = comparison.nfr, comparison.clustered
    if told is None:
        needed, what = prompts_to_decide(nfr.k, nfr.n, max_nfr, alpha=comparison.alpha), "prompts"
    else:
        needed, what = clusters_to_decide(nfr, told, max_nfr, alpha=comparison.alpha), "clusters of prompts"
    if needed is None:
        return f"the rate is too close to the limit for any number of {what} to decide"
    if told is None:
        return f"if the rate stays, about {needed:,} prompts would decide"
    size = nfr.n / told.clusters
    more = f"{needed - told.clusters:,} more than the {told.clusters:,} here"
    return f"if the rate stays, about {needed:,} {what} ({size:.3g} pairs each) would decide, {more}"
