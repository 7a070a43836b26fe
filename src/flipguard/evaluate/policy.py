"""A policy: one YAML file with all limits that an update is held against, checked before any answer is read."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from flipguard.errors import PolicyError, choose, shown
from flipguard.evaluate.stats import LEAST_ALPHA

Estimand = Literal["nfr", "excess"]

LARGEST = 100_000  # bytes; a policy is a page
LARGEST_NUMBER = 1e300
SEVERITY = {"max_mean": "mean", "max_mean_flip": "mean_flip", "max_p90": "p90", "max_worst": "max"}
LIMITS = ("limit", "slices", "severity", "refusals")  # keys that decide; the others say how
KEYS = (*LIMITS, "alpha", "estimand", "max_invalid", "max_unmatched")

_SHARE = "choose a share between 0 and 1; 0.05 is 5 %"


@dataclass(frozen=True, slots=True)
class SliceLimit:
    """The limit on one category; with fewer than `min_n` valid pairs it stays inconclusive."""

    limit: float
    min_n: int = 10


@dataclass(frozen=True, slots=True)
class Policy:
    """What an update must keep to; None: not asked for.

    Attributes:
        path: the file.
        sha256: of its bytes.
        content: its text.
        limit: on the estimand, which is the NFR or its excess over the floor.
        alpha: error of the bounds.
        estimand: what `limit` is held against.
        slices: limits on the NFR of single categories.
        max_invalid: the largest share of matched pairs that could not be graded.
        max_unmatched: the largest share of prompts without a partner.
        severity: by field of `Comparison.severity`, the most that it may be, in units of the score.
        refusals: the limit on the share of prompts that were answered before and are refused now.
    """

    path: Path
    sha256: str
    content: str
    limit: float | None = None
    alpha: float | None = None
    estimand: Estimand = "nfr"
    slices: Mapping[str, SliceLimit] = field(default_factory=dict)
    max_invalid: float | None = None
    max_unmatched: float | None = None
    severity: Mapping[str, float] = field(default_factory=dict)
    refusals: float | None = None


def read_policy(path: Path) -> Policy:
    """Read and check a policy.

    Raises:
        PolicyError: the file cannot be read, or a key or value is not possible.
    """
    raw = _bytes(path)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path}: not UTF-8 text (byte {error.start}). Save the policy as UTF-8.") from None
    found = _mapping(str(path), _yaml(path, text), KEYS)
    if not found.keys() & set(LIMITS):
        raise PolicyError(f"{path}: sets no limit. Give at least one of: {', '.join(LIMITS)}.")
    if "estimand" in found and "limit" not in found:
        raise PolicyError(f"{path}: estimand: says what 'limit' is held against, and there is none. Give a limit.")
    return Policy(path, hashlib.sha256(raw).hexdigest(), text, **_values(str(path), found))


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise PolicyError(f"{path}: no such policy. Check the path; docs/ci.md shows one to start from.") from None
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read ({error.strerror}). Name a YAML file.") from None
    if len(raw) > LARGEST:
        raise PolicyError(f"{path}: is larger than {LARGEST:,} bytes. Is it the policy?")
    return raw


def _yaml(path: Path, text: str) -> Any:
    """YAML 1.2, so that a key said twice is an error and 1e-3 a number."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError

    try:
        return YAML(typ="safe", pure=True).load(io.StringIO(text))
    except MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        raise PolicyError(f"{path}{line}: not valid YAML: {shown(problem, 200)}. Correct it there.") from None
    except Exception as error:  # a date of day 40, brackets a thousand deep: its constructors raise what they like
        raise PolicyError(f"{path}: not valid YAML: {shown(str(error), 200)}. Compare it with docs/ci.md.") from error


def _values(path: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Policy, each checked."""
    values: dict[str, Any] = {}
    for key, value in found.items():
        place = f"{path}: {key}"
        match key:
            case "limit" | "max_invalid" | "max_unmatched":
                values[key] = _number(place, value, 0.0, 1.0, _SHARE)
            case "alpha":
                values[key] = _alpha(place, value)
            case "estimand":
                values[key] = _estimand(place, value)
            case "refusals":
                values[key] = _limit(place, _mapping(place, value, ("limit",)))
            case "slices":
                values[key] = {name: _slice(_within(place, name), part) for name, part in _filled(place, value)}
            case "severity":
                values[key] = _severity(place, value)
    return values


def _mapping(place: str, value: Any, choices: Iterable[str] | None = None) -> dict[str, Any]:
    """A mapping with words as keys, of `choices` only where they are given."""
    if not isinstance(value, dict):
        keys = "" if choices is None else f" with the keys {', '.join(choices)}"
        raise PolicyError(f"{place}: {_named(value)} is not possible: give a mapping{keys}.")
    for key in value:
        if not isinstance(key, str) or not key:
            raise PolicyError(f"{place}: the key {_named(key)} is not a word. Put it in quotes.")
        if choices is not None and key not in choices:
            raise PolicyError(f"{place}: unknown key {shown(key)}. {choose(key, choices)}")
    return value


def _filled(place: str, value: Any) -> Iterable[tuple[str, Any]]:
    """The entries of a mapping by names from the data; there must be some."""
    found = _mapping(place, value)
    if not found:
        raise PolicyError(f"{place}: is empty. Name a category and its limit, or leave the key out.")
    return found.items()


def _slice(place: str, value: Any) -> SliceLimit:
    found = _mapping(place, value, ("limit", "min_n"))
    least = found.get("min_n", 10)
    if isinstance(least, bool) or not isinstance(least, int) or least < 1:
        raise PolicyError(f"{place}.min_n: {_named(least)} is not possible: choose a whole number of pairs, 1 or more.")
    return SliceLimit(_limit(place, found), least)


def _limit(place: str, found: Mapping[str, Any]) -> float:
    if "limit" not in found:
        raise PolicyError(f"{place}: has no limit. Add limit: {_SHARE}.")
    return _number(f"{place}.limit", found["limit"], 0.0, 1.0, _SHARE)


def _severity(place: str, value: Any) -> dict[str, float]:
    found = _mapping(place, value, SEVERITY)
    if not found:
        raise PolicyError(f"{place}: is empty. {choose('', SEVERITY)}")
    way = "choose a number of 0 or more, in units of the score"
    return {SEVERITY[key]: _number(f"{place}.{key}", most, 0.0, math.inf, way) for key, most in found.items()}


def _alpha(place: str, value: Any) -> float:
    way = "choose a number between 1e-6 and 0.5, 0.05 for 95 %"
    alpha = _number(place, value, LEAST_ALPHA, 0.5, way)
    if alpha == 0.5:
        raise PolicyError(f"{place}: {shown(value)} is not possible: {way}.")
    return alpha


def _estimand(place: str, value: Any) -> Estimand:
    for known in get_args(Estimand):
        if isinstance(value, str) and value == known:
            return known  # type: ignore[no-any-return]
    raise PolicyError(f"{place}: unknown value {_named(value)}. {choose(_named(value), get_args(Estimand))}")


def _number(place: str, value: Any, low: float, high: float, way: str) -> float:
    """A finite number from low to high; `way` is what to choose instead."""
    right = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER
    if not right or not low <= value <= high:
        raise PolicyError(f"{place}: {_named(value)} is not possible: {way}.")
    return float(value)


def _within(place: str, name: str) -> str:
    """The place of an entry whose name comes from the data."""
    return f"{place}.{name if name.isprintable() and len(name) <= 60 else shown(name)}"


def _named(value: object) -> str:
    """A wrong value as it may be printed; what nests is only called by its kind, since it may refer to itself."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list() | set() | tuple():
            return "a list"
        case int() if value.bit_length() > 200:
            return "a number this large"
    return shown(value)
