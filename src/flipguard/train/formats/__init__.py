"""The formats of preference data, found by looking at rows. To add one: a file, and its name in FORMATS."""

from __future__ import annotations

from collections.abc import Sequence

from flipguard.errors import DataError, shown
from flipguard.records import Row
from flipguard.train.formats.cvalues import CVALUES
from flipguard.train.formats.example import Conversation, Example, Format, Kind, MalformedError, Text
from flipguard.train.formats.hh import HH
from flipguard.train.formats.sharegpt import SHAREGPT
from flipguard.train.formats.summarize import SUMMARIZE
from flipguard.train.formats.trl import PAIRS, PROMPTS, SUPERVISED, UNPAIRED
from flipguard.train.formats.ultrafeedback import ULTRAFEEDBACK

__all__ = ["FORMATS", "LOOKED_AT", "Conversation", "Example", "Format", "Kind", "MalformedError", "Text", "recognise"]

# the most special first
FORMATS = (HH, ULTRAFEEDBACK, SUMMARIZE, CVALUES, SHAREGPT, PAIRS, UNPAIRED, SUPERVISED, PROMPTS)
LOOKED_AT = 10  # rows; the format is that of most of them


def recognise(rows: Sequence[Row], kind: Kind, name: str, source: str) -> Format:
    """The format of a source, from its first rows.

    Args:
        rows: the first ones.
        kind: what shall be trained on; pairs serve every kind.
        name: "auto", or the name of the format; then the rows are not looked at.
        source: for the message.

    Raises:
        DataError: no format fits; the message says why each one does not.
    """
    own = [item for item in FORMATS if item.kind == kind] if kind != "pairs" else []
    pairs = [item for item in FORMATS if item.kind == "pairs"]
    fitting = [*pairs, *own] if kind == "prompts" else [*own, *pairs]  # what has a prompt may be a pair all the same
    if name != "auto":
        chosen = next((item for item in fitting if item.name == name), None)
        if chosen is None:
            names = ", ".join(item.name for item in fitting)
            raise DataError(f"{source}: the format {name} has no rows for this algorithm. Choose one of: {names}.")
        return chosen
    for item in fitting:
        if sum(item.refuses(row) is None for row in rows) * 2 > len(rows):
            return item
    if not rows:
        return fitting[-1]
    reasons = "; ".join(f"{item.name}: {next(filter(None, map(item.refuses, rows)), '')}" for item in fitting)
    keys = shown(", ".join(map(str, rows[0])))
    raise DataError(f"{source}: no format fits its rows; their keys are {keys}. Tried {reasons}. See docs/data.md.")
