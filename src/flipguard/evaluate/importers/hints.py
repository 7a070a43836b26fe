"""What a file that no format recognises may be, and what to do then; nothing where that cannot be told."""

from __future__ import annotations

from flipguard.evaluate.source import Source
from flipguard.records import Row
from flipguard.remedies import wrong_encoding

ANSWERS = ("completion", "output", "generation")
NOT_GRADES = ("id", "repeat", "index", "turn", "question_id", "doc_id")


def hint(source: Source) -> str:
    """One sentence with a space before it, or nothing."""
    if not source.rows:
        text = source.kind not in ("zip", "parquet", "folder")
        return (wrong_encoding(source.head) if text else "") or _of_a_text(source)
    row = source.rows[0]
    if isinstance(row.get("results"), dict) and "config" in row:
        return (
            " It looks like results of lm-evaluation-harness; compare its samples_*.jsonl, which --log_samples writes."
        )
    grades = [key for key, value in row.items() if isinstance(value, bool | int | float) and key not in NOT_GRADES]
    if "id" in row and grades:
        return f" If a row is one graded answer, name the grade: --format scores --metric {_quoted(grades[0])}."
    if any(isinstance(row.get(key), str) for key in ANSWERS):
        return _of_answers(row)
    return ""


def _of_answers(row: Row) -> str:
    ready = "id" in row and "prompt" in row and "completion" in row
    how = "grade it and its partner with flipguard judge" if ready else "grade them first"
    return f" It holds answers without grades; {how}."


def _of_a_text(source: Source) -> str:
    first = next((line for line in source.head.splitlines() if line.strip()), b"")
    if first.startswith(b"version https://git-lfs"):
        return " It is a pointer of Git LFS; git lfs pull fetches the file itself."
    if first.lstrip()[:5].lower() in (b"<html", b"<!doc"):
        return " It is a page of HTML; a download may have failed."
    words = source.kind == "lines" and not first.lstrip().startswith((b"{", b"[", b"<"))
    table = words and any(mark in first for mark in (b",", b";", b"\t"))
    return " If it is a table, it needs a column named id." if table else ""


def _quoted(name: str) -> str:
    return f"'{name}'" if " " in name else name
