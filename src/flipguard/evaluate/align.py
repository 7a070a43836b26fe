"""Bring two runs together by (id, repeat): pairs with their outcome, and the account of what did not fit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from flipguard.errors import DataError, shown
from flipguard.evaluate.comparison import Alignment, Pair
from flipguard.evaluate.intake import ChangedTargets
from flipguard.evaluate.outcomes import judged, scored
from flipguard.evaluate.runs import Entry, Judged, Key, Run

EXAMPLES = 5  # unmatched ids to show per side

_KEPT = {
    "keep": "Targets that differ between the runs, each answer graded by its own: {:,}.",
    "drop": "Prompts left out because their targets differ between the runs: {:,}.",
}


@dataclass(frozen=True, slots=True)
class Aligned:
    """The matched pairs in the order of the old run, examples of ids that have no partner, and what to know besides."""

    pairs: list[Pair]
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
    _refuse_ids_of_two_types(old, new)
    pairs: list[Pair] = []
    changed, moved = 0, list[Key]()
    for key, before in old.entries.items():
        after = new.entries.get(key)
        if after is not None:
            changed += _differ(before.prompt, after.prompt)
            if _differ(before.target, after.target):
                moved.append(key)
                if changed_targets == "drop":
                    continue
            pairs.append(_pair(key, before, after, margin))
    if moved and changed_targets == "error":
        raise _changed_targets(old, new, moved)
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
        changed_targets=len(moved),
    )
    notes = [_KEPT[changed_targets].format(len(moved))] if moved else []
    notes += dict.fromkeys([*old.notes, *new.notes])
    return Aligned(pairs, alignment, _examples(only_old), _examples(only_new), tuple(notes))


def from_judged(both: Judged, *, margin: float) -> Aligned:
    """The pairs of one file that holds both sides."""
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


def _pair(key: Key, before: Entry, after: Entry, margin: float) -> Pair:
    old, new = before.answer, after.answer
    return Pair(
        id=key[0],
        repeat=key[1],
        old=old,
        new=new,
        outcome=scored(old, new, margin=margin),
        prompt=after.prompt if before.prompt is None else before.prompt,
        categories=before.categories or after.categories,
        cluster=after.cluster if before.cluster is None else before.cluster,
    )


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
