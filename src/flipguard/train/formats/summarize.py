"""openai/summarize_from_feedback, `comparisons`, processed as PRO (arXiv 2306.17492) does.

News articles (CNN/DM) are left out; the prompt is the Reddit post with its subreddit and title, ending in "TL;DR:";
a summary is stripped and begins with one space; `choice` says which of the two is better.
"""

from __future__ import annotations

from typing import Any

from flipguard.errors import shown
from flipguard.records import Row
from flipguard.train.formats.example import Example, Format, MalformedError, missing


def _refuses(row: Row) -> str | None:
    return missing(row, "info", "summaries", "choice")


def _read(row: Row) -> Example | None:
    info = row["info"]
    if not isinstance(info, dict):
        raise MalformedError(f"'info' must be an object, found {shown(info)}")
    if info.get("post") is None:
        return None
    summaries, choice = _summaries(row["summaries"]), row["choice"]
    if isinstance(choice, bool) or choice not in (0, 1):
        raise MalformedError(f"'choice' must be 0 or 1, found {shown(choice)}")
    prompt = f"SUBREDDIT: r/{info.get('subreddit')}\nTITLE: {info.get('title')}\nPOST: {info['post']}\nTL;DR:"
    said = info.get("id")
    return Example(prompt, (summaries[choice], summaries[1 - choice]), id=said if isinstance(said, str) else None)


def _summaries(value: Any) -> list[str]:
    said = [item.get("text") for item in value if isinstance(item, dict)] if isinstance(value, list) else []
    texts = [item for item in said if isinstance(item, str)]
    if len(texts) != 2 or len(said) != 2:
        raise MalformedError(f"'summaries' must be two objects with a text, found {shown(value)}")
    return [f" {item.strip()}" for item in texts]


SUMMARIZE = Format("summarize_from_feedback", "pairs", _refuses, _read)
