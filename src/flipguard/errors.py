"""Everything FlipGuard raises on purpose: one line that names the place, the value and the way out.

FlipGuardError               exit code 2; never shown with a traceback
├── DataError                a data file: path, line, value
├── RecipeError              a recipe, an override or a trainer's config: place, key, value, choices
├── PolicyError              a policy for `compare`: file, key, value, choices
├── ModelError               a model folder, tokenizer or context length
├── JudgeError               a judge or scorer that cannot be loaded or broke its contract
└── ToldElsewhereError       of several processes of one run, another one says what went wrong
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_COMMAND = re.compile(r"^(\s*)::|##(?=\[|vso\[)", re.MULTILINE)


class FlipGuardError(Exception):
    """Base of all deliberate errors; the command line prints it as one line and exits with 2."""


class DataError(FlipGuardError):
    """A data file cannot be used; the message names the file, the line and the value."""


class RecipeError(FlipGuardError):
    """A recipe or a trainer's config says something impossible; the message names place, key, value and choices."""


class PolicyError(FlipGuardError):
    """A policy asks for something impossible; the message names the file, the key, the value and the choices."""


class ModelError(FlipGuardError):
    """A model or tokenizer cannot be loaded or does not fit the data."""


class JudgeError(FlipGuardError):
    """A judge cannot be loaded or does not return what a judge must return."""


class ToldElsewhereError(FlipGuardError):
    """Another process of the same run says what went wrong; this one ends without a word."""


def shown(value: object, limit: int = 60) -> str:
    """`value` as it may be printed: quoted, control characters escaped, at most `limit` characters."""
    start = value[: limit + 1] if isinstance(value, bytes | str) else value  # of a gigabyte no more than is shown
    text = ascii(start) if isinstance(value, bytes) else repr(start)
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def inert(text: str) -> str:
    """`text` as the log of a workflow may hold it: nothing in it is a command to the runner (`::x::`, `##[x]`).

    >>> inert("std::map, ##[x]"), inert("  ::x::")
    ('std::map, #·[x]', '  ∷ x::')
    """
    return _COMMAND.sub(lambda found: "#·" if found[1] is None else f"{found[1]}∷ ", text)


def choose(unknown: object, choices: Iterable[object]) -> str:
    """The way out of a wrong name: "Did you mean 'gamma'? Choose one of: epsilon, gamma."."""
    names = [str(choice) for choice in choices]
    if not names:
        return "There is none."
    near = difflib.get_close_matches(str(unknown), names, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return f"{hint}Choose one of: {', '.join(names)}."


def told(error: Exception) -> str:
    """Any error for a person; what is no FlipGuardError, OSError or missing package is our own fault."""
    match error:
        case FlipGuardError():
            return str(error)
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}{error.strerror or error}. A file is written whole or stays as it was."
        case ModuleNotFoundError():
            return f"needs the package {error.name!r}. Install it with: pip install 'flipguard[train]'"
        case _:
            name = type(error).__name__
            return f"a fault of flipguard itself ({name}: {error}). FLIPGUARD_TRACEBACK=1 shows where."
