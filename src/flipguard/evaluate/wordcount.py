"""How many words a text has.

Chinese, Japanese and Korean are written without spaces between words: each of their letters counts as a word, and their
punctuation as space.
"""

from __future__ import annotations

import re
from typing import Final

LETTERS: Final = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_MARKS: Final = "\u3000-\u303f\uff00-\uff0f\uff1a-\uff20"
SPACE: Final = rf"\s{_MARKS}"
_SPECIAL = re.compile(f"[{LETTERS}{_MARKS}]")
_WORD = re.compile(f"[{LETTERS}]|[^{SPACE}{LETTERS}]+")


def words(text: str) -> int:
    """How many words `text` has; in Chinese, Japanese and Korean, how many letters.

    >>> words("Hello, world!"), words("你好，世界 and you")
    (2, 6)
    """
    return len(text.split() if text.isascii() or not _SPECIAL.search(text) else _WORD.findall(text))
