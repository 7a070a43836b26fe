"""Two candidates against one old model: does one of them break less than the other, prompt by prompt?"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from flipguard.evaluate.comparison import Outcome, Pair, Proportion, Test
from flipguard.evaluate.pairs import Pairs, Part
from flipguard.evaluate.permutation import signs, stream
from flipguard.evaluate.sampling import INDEPENDENT, Sampling
from flipguard.evaluate.stats import mcnemar


@dataclass(frozen=True, slots=True)
class Rivalry:
    """How often each of two candidates alone had an outcome, over the prompts both were graded on.

    `p_value` is McNemar's exact one, two-sided: the chance of a difference this large if both had it equally often.
    Where prompts share clusters it is the paired permutation test, the pairs of a cluster changing sides together.
    """

    n: int
    only_first: int
    only_second: int
    p_value: float
    test: Test = "exact McNemar"


@dataclass(frozen=True, slots=True)
class Rival:
    """Another candidate of the same old model, over the `n` prompts both were graded on; `nfr` is over all of its own.

    `only_this` and `only_other` count prompts on which only the candidate compared, or only the rival, got worse.
    """

    name: str
    n: int
    only_this: int
    only_other: int
    p_value: float
    nfr: Proportion
    test: Test = "exact McNemar"


def rivalry(
    first: Sequence[Pair], second: Sequence[Pair], outcome: Outcome = "negative_flip", *, seed: int = 0
) -> Rivalry:
    """Compare two candidates' outcomes on the prompts that both have, paired by (id, repeat).

    Args:
        first: pairs of the old model and one candidate.
        second: pairs of the same old model and the other candidate.
        outcome: what is counted.
        seed: of the test where prompts share clusters.
    """
    n = only_first = only_second = 0
    nets: dict[Hashable, int] = {}
    for cluster, one, other in _both(first, second, outcome):
        n += 1
        only_first += one and not other
        only_second += other and not one
        nets[cluster] = nets.get(cluster, 0) + one - other
    if len(nets) == n:
        return Rivalry(n, only_first, only_second, mcnemar(only_first, only_second))
    p_value = signs(list(nets.values()), stream(seed, "rival"))
    return Rivalry(n, only_first, only_second, p_value, "signs of clusters")


def rival(name: str, this: Sequence[Pair], other: Sequence[Pair], how: Sampling = INDEPENDENT) -> Rival:
    """The candidate of `this` against another one, `name`, on which prompts each breaks.

    Args:
        name: the other candidate.
        this: pairs of the old model and the candidate compared.
        other: pairs of the same old model and the other candidate.
        how: how pairs were drawn.
    """
    found = rivalry(this, other, seed=how.seed)
    valid = Part.of(other).valid()
    nfr = how.share(valid.of_outcome("negative_flip"), valid, "rival rate")
    return Rival(name, found.n, found.only_first, found.only_second, found.p_value, nfr, found.test)


def _both(first: Sequence[Pair], second: Sequence[Pair], outcome: Outcome) -> Iterator[tuple[Hashable, bool, bool]]:
    """Cluster, and whether each candidate had the outcome, for every prompt that is valid in both."""
    one, other = Pairs.of(first), Pairs.of(second)
    seen = dict(zip(other.old.order, other.outcomes, strict=True))
    for key, group, became in zip(one.old.order, one.groups(), one.outcomes, strict=True):
        became_too = seen.get(key, "invalid")
        if "invalid" not in (became, became_too):
            yield group, became == outcome, became_too == outcome
