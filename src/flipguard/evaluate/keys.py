"""The keys of many answers, as two columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from flipguard.evaluate.picks import pick
from flipguard.evaluate.runs import Key
from flipguard.records import RowId

_END = "\n"


class Keys(Sequence[Key]):
    """Id and repeat of each answer, in their order; where every repeat is 0, `repeats` is empty."""

    __slots__ = ("_each_once", "ids", "repeats")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, ids: Sequence[RowId], repeats: Sequence[int] = ()) -> None:
        self.ids = ids
        self.repeats = repeats if any(repeats) else ()
        self._each_once: bool | None = None

    @classmethod
    def of(cls, keys: Iterable[Key]) -> Keys:
        """The columns of `keys`."""
        listed = list(keys)
        return cls([name for name, _ in listed], [repeat for _, repeat in listed])

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Key]:
        return zip(self.ids, self.repeats or bytes(len(self.ids)), strict=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Keys):
            return NotImplemented
        return self.ids == other.ids and list(self.repeats) == list(other.repeats)

    @overload
    def __getitem__(self, index: int) -> Key: ...
    @overload
    def __getitem__(self, index: slice) -> list[Key]: ...
    def __getitem__(self, index: int | slice) -> Key | list[Key]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        return self.ids[index], self.repeats[index] if self.repeats else 0

    def take(self, rows: Sequence[int]) -> Keys:
        """The keys number `rows`."""
        return Keys(pick(self.ids, rows), pick(self.repeats, rows) if self.repeats else ())

    def each_once(self) -> bool:
        """Whether no key comes twice."""
        if self._each_once is None:
            self._each_once = len(set(self if self.repeats else self.ids)) == len(self)
        return self._each_once

    def __reduce__(self) -> tuple[object, ...]:
        """Texts as one: a million of them are sent to another process ten times as fast."""
        together = _END.join(self.ids) if set(map(type, self.ids)) == {str} else ""  # type: ignore[arg-type]
        if not self.ids or together.count(_END) != len(self.ids) - 1:
            return _again, (self.ids, self.repeats, self._each_once)
        return _again, (together, self.repeats, self._each_once)


def _again(ids: Sequence[RowId] | str, repeats: Sequence[int], each_once: bool | None) -> Keys:  # noqa: FBT001 - pickled
    keys = Keys(ids.split(_END) if isinstance(ids, str) else ids, repeats)
    keys._each_once = each_once  # noqa: SLF001 - one of ours
    return keys
