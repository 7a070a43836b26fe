"""What a comparison of two models is: plain data, made once by `compare`, read by the gate and every report view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from flipguard.records import RowId, Verdict

if TYPE_CHECKING:
    from flipguard.evaluate.agreement import Agreement
    from flipguard.evaluate.bootstrap import Clustered
    from flipguard.evaluate.change import Change, Means
    from flipguard.evaluate.flipfile import Draft
    from flipguard.evaluate.health import Health
    from flipguard.evaluate.labels import Labels
    from flipguard.evaluate.orders import Orders
    from flipguard.evaluate.refusals import Refusals
    from flipguard.evaluate.rivals import Rival
    from flipguard.evaluate.sequential import Sequential
    from flipguard.evaluate.shifts import Shifts

SCHEMA = "flipguard.comparison/1"

Outcome = Literal["negative_flip", "positive_flip", "tie", "inconsistent", "invalid"]
Over = Literal["pairs", "clusters"]  # what was taken for independent
Test = Literal["exact McNemar", "signs of clusters"]
Decision = Literal["pass", "fail", "inconclusive", "invalid", "none"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer to one prompt, graded or not.

    `score` is a number (binary correctness is 1.0 or 0.0), None where it could not be graded; `error` says why.
    `finish_reason` is "length" where the answer was cut off, None where the file does not say. `rationale` is why the
    grader gave this grade, in its words.
    """

    score: float | None = None
    completion: str | None = None
    error: str | None = None
    finish_reason: str | None = None
    rationale: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Both answers to one prompt; `outcome` is what became of it."""

    id: RowId
    repeat: int
    old: Answer
    new: Answer
    outcome: Outcome
    prompt: str | None = None
    categories: tuple[str, ...] = ()
    cluster: str | None = None
    verdicts: tuple[Verdict, ...] = ()

    @property
    def change(self) -> float | None:
        """The new score minus the old one, or None where either is missing."""
        if self.old.score is None or self.new.score is None:
            return None
        return self.new.score - self.old.score


@dataclass(frozen=True, slots=True)
class Proportion:
    """k of n, with its uncertainty: Wilson 95 % `low`..`high`, one-sided 95 % Clopper-Pearson `upper`.

    Where pairs share clusters, `over` is "clusters" and the bounds are those with clusters resampled.
    With n = 0 nothing is known: value is None, the bounds are 0 and 1.
    """

    k: int
    n: int
    value: float | None
    low: float
    high: float
    upper: float
    over: Over = "pairs"


@dataclass(frozen=True, slots=True)
class Net:
    """Share of positive minus share of negative flips, with a two-sided p-value and the interval `low`..`high`.

    Exact McNemar (the sign test) and Tango's score interval for independent pairs; where pairs share clusters, these
    change sign together in the test and are resampled for the interval. Without pairs nothing is known: -1 to 1.
    """

    value: float | None
    p_value: float
    test: Test = "exact McNemar"
    low: float = -1.0
    high: float = 1.0


@dataclass(frozen=True, slots=True)
class Slice:
    """One category with the two-sided `test` of better against worse, None where it is too small to be tested.

    `p_value` is that of the category alone,
    `p_adjusted` is Holm's over the tested slices, to act on; `p_discovery` Benjamini and Hochberg's, to look further.
    """

    name: str
    n: int
    negative_flips: int
    positive_flips: int
    nfr: Proportion
    win_rate: Proportion
    p_adjusted: float | None
    p_discovery: float | None = None
    p_value: float | None = None
    test: Test = "exact McNemar"


@dataclass(frozen=True, slots=True)
class Alignment:
    """How the two runs fit together, told before anything else.

    Prompts with `changed_targets` are among the matched with --changed-targets keep, and among none with drop.
    """

    old: int
    new: int
    matched: int
    only_old: int
    only_new: int
    duplicates: int
    changed_prompts: int
    changed_targets: int = 0

    @property
    def unmatched_share(self) -> float:
        """Share of all prompts seen on either side that lack a partner; 1.0 where there are none at all."""
        total = self.matched + self.only_old + self.only_new
        return 1.0 if total == 0 else (self.only_old + self.only_new) / total


@dataclass(frozen=True, slots=True)
class Coverage:
    """How a further run fits the compared prompts, which are the old side of `alignment`; `option` named its file.

    `valid` and `invalid` count its pairs with the old model.
    """

    option: str
    name: str
    alignment: Alignment
    valid: int
    invalid: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a policy and what became of it; `bound` is what was held against `limit`, None where nothing is."""

    name: str
    verdict: Decision
    reason: str
    observed: float | None
    bound: float | None
    limit: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result, field for field as comparison.json has it (schema `flipguard.comparison/1`)."""

    old: str
    new: str
    n: int
    negative_flips: int
    positive_flips: int
    ties: int
    inconsistent: int
    invalid: int
    nfr: Proportion
    win_rate: Proportion
    nfr_given_correct: Proportion | None
    net: Net
    slices: tuple[Slice, ...]
    alignment: Alignment
    margin: float
    alpha: float
    verdict: Decision = "none"
    reason: str = "No limit was asked for; --max-nfr sets one."
    severity: dict[str, Any] | None = None
    floor: dict[str, Any] | None = None
    refusals: Refusals | None = None
    shifts: Shifts | None = None
    sequential: Sequential | None = None
    labels: Labels | None = None
    agreement: Agreement | None = None
    clustered: Clustered | None = None
    orders: Orders | None = None
    health: Health | None = None
    means: Means | None = None
    change: Change | None = None
    rival: Rival | None = None
    companions: tuple[Coverage, ...] = ()
    rules: tuple[Rule, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def upper(self) -> float:
        """The one-sided bound of the NFR that a limit is held against; where pairs share clusters, over those."""
        return self.nfr.upper if self.clustered is None else self.clustered.nfr.upper

    def to_json(self) -> dict[str, Any]:
        """The document written to comparison.json."""
        return {"schema": SCHEMA, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Result:
    """A comparison with the pairs it was made of; `draft` is their file of flips where that was begun already."""

    comparison: Comparison
    pairs: Sequence[Pair]
    draft: Draft | None = None
