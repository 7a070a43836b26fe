"""Bring two runs together by (id, repeat): pairs with their outcome, and the account of what did not fit."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, compress
from operator import is_not
from typing import TypeVar

from flipguard.errors import DataError, shown
from flipguard.evaluate.columns import MANY, Columns, same_texts
from flipguard.evaluate.comparison import Alignment, Outcome
from flipguard.evaluate.forms import NO_TEXT
from flipguard.evaluate.intake import ChangedTargets
from flipguard.evaluate.outcomes import judged, scored
from flipguard.evaluate.pairs import Pairs
from flipguard.evaluate.runs import Entry, Judged, Key, Run
from flipguard.records import moved

Item = TypeVar("Item")
FLIPS = ("negative_flip", "positive_flip")
EXAMPLES = 5  # unmatched ids to show per side

_NOTHING = (None, ())
_is_given = partial(is_not, None)
_KEPT = {
    "keep": "Targets that differ between the runs, each answer graded by its own: {:,}.",
    "drop": "Prompts left out because their targets differ between the runs: {:,}.",
}


@dataclass(frozen=True, slots=True)
class Aligned:
    """The matched pairs in the order of the old run, examples of ids that have no partner, and what to know besides."""

    pairs: Pairs
    alignment: Alignment
    unmatched_old: list[str] = field(default_factory=list)
    unmatched_new: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def align(old: Run, new: Run, *, margin: float, changed_targets: ChangedTargets = "error") -> Aligned:
    """Pair the answers of two runs graded the same way.

    Args:
        old: the run of the model before.
        new: the run of the model after.
        margin: change of score up to which a pair is a tie.
        changed_targets: what to do with prompts whose right answer is not the same in both runs.

    Raises:
        DataError: the runs are graded otherwise, name ids otherwise, or have other targets and no rule for them.
    """
    _refuse_other_grades(old, new)
    left, right = Columns.of(old.entries), Columns.of(new.entries)
    rows, partners, only_old, only_new = _matched(left, right)
    _refuse_ids_of_two_types(old, new, only_old, only_new)
    before, after = left.take(rows), right.take(partners)
    changed = sum(_differing(before.prompts_printed(), after.prompts_printed()))
    differ = _differing(before.targets_printed(), after.targets_printed())
    moved = list(compress(before.order, differ))
    if moved and changed_targets == "error":
        raise _changed_targets(old, new, moved)
    if moved and changed_targets == "drop":
        kept = [row for row, other in enumerate(differ) if not other]
        before, after = before.take(kept), after.take(kept)
    alignment = Alignment(
        old=len(left),
        new=len(right),
        matched=len(before),
        only_old=len(only_old),
        only_new=len(only_new),
        duplicates=old.duplicates + new.duplicates,
        changed_prompts=changed,
        changed_targets=len(moved),
    )
    notes = [_KEPT[changed_targets].format(len(moved))] if moved else []
    notes += dict.fromkeys([*old.notes, *new.notes])
    pairs = Pairs(
        before,
        after,
        outcomes=outcomes(before, after, margin=margin),
        categories=_either(before.categories, after.categories),
        clusters=_either(before.clusters, after.clusters),
    )
    return Aligned(pairs, alignment, _examples(only_old), _examples(only_new), tuple(notes))


def from_judged(both: Judged, *, margin: float) -> Aligned:
    """The pairs of one file that holds both sides."""
    items, keys = list(both.judgments.values()), list(both.judgments)
    verdicts = both.metric == "verdicts"
    pairs = Pairs(
        old=Columns.listed(keys, [Entry(item.old, item.prompt) for item in items]),
        new=Columns.listed(keys, [Entry(item.new, item.prompt) for item in items]),
        outcomes=[
            judged(item.old, item.new, item.verdicts) if verdicts else scored(item.old, item.new, margin=margin)
            for item in items
        ],
        categories=[item.categories for item in items],
        clusters=[item.cluster for item in items],
        verdicts=[item.verdicts for item in items],
    )
    alignment = Alignment(
        old=len(pairs) + len(both.only_old),
        new=len(pairs) + len(both.only_new),
        matched=len(pairs),
        only_old=len(both.only_old),
        only_new=len(both.only_new),
        duplicates=both.duplicates,
        changed_prompts=both.changed_prompts,
    )
    return Aligned(pairs, alignment, _examples(both.only_old), _examples(both.only_new), both.notes)


def outcomes(old: Columns, new: Columns, *, margin: float) -> list[Outcome]:
    """What became of each pair by scores, as `scored` says of one."""
    found = _by_scores(old, new, margin)
    for row in same_texts(old.forms().prints, new.forms().prints):
        if found[row] in FLIPS and old.completions[row] == new.completions[row]:  # texts are read where that decides
            found[row] = "tie"
    return found


def _by_scores(old: Columns, new: Columns, margin: float) -> list[Outcome]:
    one, other = old.scores, new.scores
    if len(old) >= MANY and isinstance(one, array) and isinstance(other, array):
        from flipguard.evaluate.many import all_moved

        if not any(map(_is_given, chain(old.errors, new.errors))):
            return [*all_moved(one, other, margin)]
    columns = zip(old.scores, new.scores, old.errors, new.errors, strict=True)
    return [
        "invalid"
        if before is None or after is None or failed is not None or fails is not None
        else moved(before, after, margin)
        for before, after, failed, fails in columns
    ]


def _matched(old: Columns, new: Columns) -> tuple[Sequence[int], Sequence[int], list[Key], list[Key]]:
    """The rows that have partners, their partners' rows, and the keys without any on either side."""
    if old.order == new.order:
        return range(len(old)), range(len(old)), [], []
    rows = [row for row, key in enumerate(old.order) if key in new]
    partners = [new.rows[old.order[row]] for row in rows]
    only_new = [key for key in new.order if key not in old]
    return rows, partners, [key for key in old.order if key not in new], only_new


def _either(one: Sequence[Item], other: Sequence[Item]) -> Sequence[Item]:
    """What one side says of each prompt, or the other where that says nothing."""
    if one == other:
        return one
    return [said if said not in _NOTHING else also for said, also in zip(one, other, strict=True)]


def _differing(one: Sequence[int], other: Sequence[int]) -> list[bool]:
    """Whether texts differ, by their fingerprints; a text that is not known differs from none."""
    if one == other:
        return [False] * len(one)
    return [NO_TEXT != before != after != NO_TEXT for before, after in zip(one, other, strict=True)]


def _differ(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and one != other


def _changed_targets(old: Run, new: Run, keys: list[Key]) -> DataError:
    """Two answers to two targets say nothing about a flip, unless somebody says that they do."""
    more = f" and {len(keys) - EXAMPLES:,} more" if len(keys) > EXAMPLES else ""
    return DataError(
        f"{new.files[0]}: another right answer than in {old.files[0]} for id {', '.join(_examples(keys))}{more}. "
        "Grade both by one version of the data, or choose --changed-targets drop (leave them out) or keep."
    )


def _refuse_other_grades(old: Run, new: Run) -> None:
    """Two grades, or the same one for two tasks, cannot be compared."""
    both = [(old.graded[task], new.graded[task]) for task in old.graded if task in new.graded]
    told = next(((one, other) for one, other in both if one != other), (old.metric, new.metric))
    if told[0] != told[1]:
        raise DataError(
            f"{old.files[0]} is graded by '{told[0]}', {new.files[0]} by '{told[1]}': not the same scale. "
            "Grade both alike, or name one key that both have with --metric."
        )
    if _differ(old.task, new.task):
        raise DataError(
            f"{old.files[0]} is of the task {shown(old.task)}, {new.files[0]} of {shown(new.task)}: their ids are not "
            "those of the same prompts. Compare runs of one task."
        )


def _refuse_ids_of_two_types(old: Run, new: Run, only_old: Iterable[Key], only_new: Iterable[Key]) -> None:
    """Ids that match only as text (1 and "1") are a mistake in one of the files, not missing prompts."""
    as_text = {(str(key[0]), key[1]): key for key in only_old}
    twins = [(as_text[text, key[1]], key) for key in only_new if (text := str(key[0]), key[1]) in as_text]
    if twins:
        (before, _), (after, _) = twins[0]
        raise DataError(
            f"{old.files[0]} has id {shown(before)} where {new.files[0]} has {shown(after)}: {len(twins):,} ids match "
            "only as text. Write ids alike in both files, all with quotes or all without."
        )


def _examples(keys: Iterable[Key]) -> list[str]:
    first = [key for key, _ in zip(keys, range(EXAMPLES), strict=False)]
    return [shown(name) if repeat == 0 else f"{shown(name)}, repeat {repeat}" for name, repeat in first]
