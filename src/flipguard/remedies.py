"""What to do about a line that is no JSON, as far as that can be told from it."""

from __future__ import annotations

import codecs


def remedy(line: bytes, said: str) -> str:
    """What to do about `line`, of which the parser `said` why it is no JSON; empty where nobody can tell."""
    if wrong := wrong_encoding(line):
        return wrong
    if "surrogate" in said:
        return " Half a surrogate pair is no character; write U+FFFD instead."
    if b"\r" in line.rstrip():
        return " Lines end with a line feed; a carriage return alone ends none."
    if b"NaN" in line or b"Infinity" in line or "infinity" in said:
        return " JSON has no NaN or infinity; write null for what could not be graded."
    if line.lstrip()[:1] == b"[":
        return " JSONL has one object a line, not one array over all."
    return ""


def wrong_encoding(text: bytes) -> str:
    """What is wrong with the beginning or a line of a file that should be UTF-8, and what to do; empty if nothing."""
    if text.startswith(b"\x1f\x8b"):
        return " It was gzipped twice; unpack it once."
    if text[:4].count(0) >= 2 or text.startswith((b"\xff\xfe", b"\xfe\xff")):
        width = 32 if bytes(2) in (text[:2], text[2:4]) else 16
        name = f"UTF-{width}{'BE' if text[0] in (0, 0xFE) else 'LE'}"
        return f" It is {name}; convert it to UTF-8, as iconv -f {name} -t UTF-8 does."
    try:
        codecs.getincrementaldecoder("utf-8")().decode(text)  # which may be cut off within a letter
    except UnicodeDecodeError as error:
        if error.start == 0:
            return ""  # it is no text at all
        return f" It is not UTF-8 ({text[error.start]:#x} at byte {error.start + 1:,}); save it as UTF-8."
    return ""
