"""Bring two runs together by (id, repeat): pairs with their outcome, and the account of what did not fit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from flipguard.errors import DataError, shown
from flipguard.evaluate.comparison import Alignment, Pair
from flipguard.evaluate.outcomes import judged, scored
from flipguard.evaluate.runs import Entry, Judged, Key, Run

EXAMPLES = 5  # unmatched ids to show per side


@dataclass(frozen=True, slots=True)
class Aligned:
    """The matched pairs in the order of the old run, and examples of ids that have no partner."""

    pairs: list[Pair]
    alignment: Alignment
    unmatched_old: list[str] = field(default_factory=list)
    unmatched_new: list[str] = field(default_factory=list)


def align(old: Run, new: Run, *, margin: float) -> Aligned:
    """Pair the answers of two runs graded the same way; `margin` is in units of the score."""
    if old.metric != new.metric:
        raise DataError(
            f"{old.files[0]} is graded by '{old.metric}', {new.files[0]} by '{new.metric}': not the same scale. "
            "Grade both alike, or name one key that both have with --metric."
        )
    _refuse_ids_of_two_types(old, new)
    pairs: list[Pair] = []
    changed = 0
    for key, before in old.entries.items():
        after = new.entries.get(key)
        if after is not None:
            changed += before.prompt is not None and after.prompt is not None and before.prompt != after.prompt
            pairs.append(_pair(key, before, after, margin))
    only_old = [key for key in old.entries if key not in new.entries]
    only_new = [key for key in new.entries if key not in old.entries]
    alignment = Alignment(
        old=len(old.entries),
        new=len(new.entries),
        matched=len(pairs),
        only_old=len(only_old),
        only_new=len(only_new),
        duplicates=old.duplicates + new.duplicates,
        changed_prompts=changed,
    )
    return Aligned(pairs, alignment, _examples(only_old), _examples(only_new))


def from_judged(both: Judged, *, margin: float) -> Aligned:
    """The pairs of one file that holds both sides; all are matched."""
    pairs = [
        Pair(
            id=key[0],
            repeat=key[1],
            old=item.old,
            new=item.new,
            outcome=judged(item.old, item.new, item.verdicts)
            if both.metric == "verdicts"
            else scored(item.old, item.new, margin=margin),
            prompt=item.prompt,
            categories=item.categories,
            cluster=item.cluster,
            verdicts=item.verdicts,
        )
        for key, item in both.judgments.items()
    ]
    n = len(pairs)
    return Aligned(pairs, Alignment(n, n, n, 0, 0, both.duplicates, 0))


def _pair(key: Key, before: Entry, after: Entry, margin: float) -> Pair:
    return Pair(
        id=key[0],
        repeat=key[1],
        old=before.answer,
        new=after.answer,
        outcome=scored(before.answer, after.answer, margin=margin),
        prompt=after.prompt if before.prompt is None else before.prompt,
        categories=before.categories or after.categories,
        cluster=after.cluster if before.cluster is None else before.cluster,
    )


def _refuse_ids_of_two_types(old: Run, new: Run) -> None:
    """Ids that match only as text (1 and "1") are a mistake in one of the files, not missing prompts."""
    as_text = {(str(key[0]), key[1]): key for key in old.entries if key not in new.entries}
    twins = [
        (as_text[text, key[1]], key)
        for key in new.entries
        if key not in old.entries and (text := str(key[0]), key[1]) in as_text
    ]
    if twins:
        (before, _), (after, _) = twins[0]
        raise DataError(
            f"{old.files[0]} has id {shown(before)} where {new.files[0]} has {shown(after)}: {len(twins):,} ids match "
            "only as text. Write ids alike in both files, all with quotes or all without."
        )


def _examples(keys: Iterable[Key]) -> list[str]:
    first = [key for key, _ in zip(keys, range(EXAMPLES), strict=False)]
    return [shown(name) if repeat == 0 else f"{shown(name)}, repeat {repeat}" for name, repeat in first]
