"""Text of unknown origin, made harmless to look at: no control character, no lone surrogate, no hidden direction.

Escaping for HTML, Markdown or XML is the business of each view; this comes before it.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from flipguard.records import RowId

# Controls but tab and newline; bidirectional embeddings, overrides, isolates; what UTF-8 or XML cannot hold.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_PLAIN_ID = re.compile(r"[A-Za-z0-9_]{1,48}")


def _visible(match: re.Match[str]) -> str:
    """One unseen character as something to see: ␛ for ESC, [U+202E] for an override."""
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    return f"[U+{code:04X}]"


def clean(text: str) -> str:
    """`text` with every character that would act instead of being seen replaced by one that is seen.

    >>> clean("a" + chr(27) + "[31mb" + chr(0x202E) + "c")
    'a␛[31mb[U+202E]c'
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    return _UNSEEN.sub(_visible, text)


def one_line(text: str, limit: int) -> str:
    """`text` on one line of at most `limit` characters, clean.

    >>> one_line("two  words", 5)
    'two …'
    """
    line = " ".join(clean(text[: 4 * limit]).split())
    cut = len(line) > limit or len(text) > 4 * limit
    return line[: limit - 1] + "…" if cut else line


def squeeze(text: str, columns: int) -> str:
    """`text` on one line of at most `columns` columns, the middle left out: names of two runs often differ at the end.

    >>> squeeze("samples_2025-05-31", 9), squeeze("base", 9)
    ('samp…5-31', 'base')
    """
    line = one_line(text, 400)
    cut, kept = line, min(columns, len(line))
    while width(cut) > columns:
        kept -= 1
        cut = line[: kept // 2] + "…" + line[len(line) - (kept - kept // 2) :]
    return cut


def clip(text: str, limit: int) -> tuple[str, int]:
    """The first `limit` characters, and how many are left out."""
    return (text, 0) if len(text) <= limit else (text[:limit], len(text) - limit)


def anchor(row_id: RowId, repeat: int) -> str:
    """A fragment for a pair that stays the same from report to report and holds nothing but letters, digits, - and _.

    >>> anchor(17, 0), anchor("a", 2)
    ('flip-17', 'flip-a-r2')
    """
    name = str(row_id)
    if not _PLAIN_ID.fullmatch(name):
        digest = hashlib.blake2s(name.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()
        stem = re.sub(r"[^A-Za-z0-9_]+", "-", name)[:32].strip("-")
        name = f"{stem}-{digest}" if stem else digest
    return f"flip-{name}-r{repeat}" if repeat else f"flip-{name}"


def width(text: str) -> int:
    """Columns `text` takes on a terminal: East Asian wide characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text
    )


def fit(text: str, columns: int) -> str:
    """`text` on one line, cut or padded to exactly `columns` columns.

    >>> fit("abcdef", 4), fit("ab", 4)
    ('abc…', 'ab  ')
    """
    line = one_line(text, max(columns, 1))
    if width(line) > columns:
        while width(line) > columns - 1:
            line = line[:-1]
        line += "…"
    return line + " " * (columns - width(line))
