"""What became of a pair: negative flip, positive flip, tie, inconsistent or invalid. The definitions of the project.

Nothing invalid becomes a score: an error, a missing grade or an unusable verdict makes the pair invalid before anything
else is looked at. Then byte-identical completions are a tie, whatever the grader said. Then the grades decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from flipguard.evaluate.comparison import Answer, Outcome
from flipguard.records import Verdict, moved

OUTCOMES: dict[str, Outcome] = {"old": "negative_flip", "new": "positive_flip", "tie": "tie"}


def scored(old: Answer, new: Answer, *, margin: float = 0.0) -> Outcome:
    """The outcome by scores: worse by more than `margin` is a negative flip, better by more a positive one.

    For binary correctness (1.0 right, 0.0 wrong) the margin is 0: every change is a flip.

    >>> scored(Answer(1.0), Answer(0.4), margin=0.5), scored(Answer(0.8), Answer(0.7), margin=0.1)
    ('negative_flip', 'tie')
    >>> scored(Answer(1.0), Answer(None, error="timeout"))
    'invalid'
    """
    if old.score is None or new.score is None or old.error is not None or new.error is not None:
        return "invalid"
    if old.completion is not None and old.completion == new.completion:
        return "tie"
    return moved(old.score, new.score, margin)


def judged(old: Answer, new: Answer, verdicts: Sequence[Verdict]) -> Outcome:
    """The outcome by a pairwise judge: all verdicts must agree, else the pair is inconsistent.

    Where the judge was asked in one order only, its word is taken, and the comparison counts such pairs. Identical
    completions need no verdict.

    >>> judged(Answer(), Answer(), [{"order": "old_first", "winner": "old"}, {"order": "new_first", "winner": "tie"}])
    'inconsistent'
    """
    if old.error is not None or new.error is not None or any(verdict["winner"] == "invalid" for verdict in verdicts):
        return "invalid"
    if old.completion is not None and old.completion == new.completion:
        return "tie"
    winners = {verdict["winner"] for verdict in verdicts}
    if not winners:
        return "invalid"
    return OUTCOMES[winners.pop()] if len(winners) == 1 else "inconsistent"


def drop(old: float | None, new: float | None, margin: float) -> float | None:
    """How far the new score falls below the old one beyond the margin: max(0, -d - margin); None without scores.

    >>> drop(0.75, 0.25, margin=0.25)
    0.25
    """
    if old is None or new is None or math.isnan(old) or math.isnan(new):
        return None
    return max(0.0, old - new - margin)
