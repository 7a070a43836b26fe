"""How far the judge can be trusted, by what the compared files happen to show: nothing is asked of it again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from flipguard.evaluate.columns import same_texts
from flipguard.evaluate.comparison import Pair, Proportion
from flipguard.evaluate.pairs import Pairs
from flipguard.evaluate.stats import proportion
from flipguard.records import Verdict


@dataclass(frozen=True, slots=True)
class Health:
    """What a sound judge would never do, counted; None where the files hold no such case.

    `identical`: pairs of byte-identical answers that were graded apart, of all graded pairs of identical answers.
    `retest`: pairs asked more than once in one order that got different words, of all pairs asked so.
    """

    identical: Proportion | None
    retest: Proportion | None


def health(pairs: Iterable[Pair], alpha: float = 0.05) -> Health | None:
    """Count both; None where the files hold neither."""
    table = Pairs.of(pairs)
    identical, retest = _Count(), _Count()
    prints = (table.old.forms().prints, table.new.forms().prints)
    scores = (table.old.scores, table.new.scores)
    for row in same_texts(*prints):
        if table.outcomes[row] == "invalid":
            continue
        differ = _decided(table.verdicts[row]) if table.verdicts else scores[0][row] != scores[1][row]
        if not differ or table.old.completions[row] == table.new.completions[row]:  # texts are read where that decides
            identical.add(differ=differ)
    for verdicts in table.verdicts:
        asked_again = [words for words in _by_order(verdicts) if len(words) > 1]
        if asked_again:
            retest.add(differ=any(len(set(words)) > 1 for words in asked_again))
    if not identical.n and not retest.n:
        return None
    return Health(identical.share(alpha), retest.share(alpha))


class _Count:
    """Cases, and those among them that differ."""

    def __init__(self) -> None:
        self.k = self.n = 0

    def add(self, *, differ: bool) -> None:
        self.k += differ
        self.n += 1

    def share(self, alpha: float) -> Proportion | None:
        return proportion(self.k, self.n, alpha) if self.n else None


def _decided(verdicts: Sequence[Verdict]) -> bool:
    return any(verdict["winner"] in ("old", "new") for verdict in verdicts)


def _by_order(verdicts: Sequence[Verdict]) -> Iterator[list[str]]:
    """The words of each order; those that failed are none."""
    for order in ("old_first", "new_first"):
        yield [said["winner"] for said in verdicts if said["order"] == order and said["winner"] != "invalid"]
