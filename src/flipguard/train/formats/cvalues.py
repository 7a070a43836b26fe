"""CValues-Comparison: a prompt, a responsible and a less responsible answer (pos_resp, neg_resp)."""

from __future__ import annotations

from flipguard.records import Row
from flipguard.train.formats.example import Example, Format, id_of, missing, text


def _read(row: Row) -> Example:
    return Example(text(row, "prompt"), (text(row, "pos_resp"), text(row, "neg_resp")), id=id_of(row))


CVALUES = Format("cvalues", "pairs", lambda row: missing(row, "prompt", "pos_resp", "neg_resp"), _read)
