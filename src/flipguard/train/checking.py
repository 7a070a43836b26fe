"""Strict reading of YAML into dataclasses: every refusal names the place, the key, the value and the choices."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from flipguard.errors import RecipeError, choose, shown

T = TypeVar("T")
NEEDED = ("algorithm", "model", "data", "data.train")


@dataclass(frozen=True)
class Place:
    """Where a value came from: the recipe file, or an override on the command line."""

    file: str
    overridden: frozenset[str] = frozenset()

    def of(self, key: str) -> str:
        """`recipe.yaml: constraint.gamma`, or `--constraint.gamma` where the command line said it."""
        return f"--{key}" if key in self.overridden else f"{self.file}: {key}" if key else self.file


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML 1.2 mapping; a key said twice is an error."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe. Check the path; `flipguard sandbox` writes examples.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as UTF-8 text ({error}).") from None
    content = _parse(text, str(path))
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: expected a mapping that starts with 'algorithm:', found {shown(content)}.")
    return content


def override(content: dict[str, Any], overrides: dict[str, str]) -> dict[str, Any]:
    """The overrides as a nested mapping of their own, each value read as YAML."""
    changed: dict[str, Any] = {}
    for key, text in overrides.items():
        *sections, last = key.split(".")
        place, existing = changed, content
        for section in sections:
            if not isinstance(place.setdefault(section, {}), dict):
                raise RecipeError(f"--{key}: --{section} says {shown(place[section])}. Say one of the two.")
            place = place[section]
            existing = existing.get(section, {}) if isinstance(existing, dict) else {}
            if isinstance(existing, str) and section in ("model", "reference", "reward"):
                place.setdefault("path", existing)
        place[last] = _parse(text, f"--{key}")
    return changed


def merge(content: dict[str, Any], changed: dict[str, Any]) -> None:
    """Lay `changed` over `content`, section by section, in place."""
    for key, value in changed.items():
        if isinstance(value, dict) and isinstance(content.get(key), dict):
            merge(content[key], value)
        else:
            content[key] = value


def build(kind: type[T], content: dict[str, Any], place: Place) -> T:
    """Validate `content` into the dataclass `kind`; the first problem becomes a RecipeError."""
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise RecipeError(_describe(kind, error.errors()[0], place)) from None


def check_names(names: Any, choices: Any, place: str) -> None:
    """Refuse the first of `names` that is not among `choices`."""
    for name in names:
        if name not in choices:
            raise RecipeError(f"{place}: unknown key {shown(name)}. {choose(name, sorted(choices))}")


def converted(kind: type, values: dict[str, Any], place: str) -> dict[str, Any]:
    """`values` as the fields of a foreign dataclass want them: names checked, plain values of the right type.

    So `off` is false where a truth value is wanted, and "1e-5" a number.
    """
    right: dict[str, Any] = {}
    names = {item.name for item in dataclasses.fields(kind) if item.init}
    check_names(values, names, place)
    hints = get_type_hints(kind)
    for name, value in values.items():
        try:
            right[name] = TypeAdapter(hints[name]).validate_python(value)
        except PydanticSchemaGenerationError:
            right[name] = value  # a type of the foreign library's own: left to that library
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise RecipeError(f"{place}.{name}: {shown(value)} is not possible: {_lower(problem)}.") from None
    return right


def _parse(text: str, place: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(io.StringIO(text))
    except MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RecipeError(f"{place}{line}: not valid YAML: {error.problem}.") from None
    except (YAMLError, ValueError) as error:
        raise RecipeError(f"{place}: not valid YAML: {str(error).splitlines()[0]}.") from None


def _describe(kind: Any, problem: Any, place: Place) -> str:
    location = [str(part) for part in problem["loc"]]
    key, value = ".".join(location), problem["input"]
    if problem["type"] == "unexpected_keyword_argument":
        owner = _dataclass_at(kind, location[:-1])
        names = sorted(item.name for item in dataclasses.fields(owner))
        where = place.of(key) if key in place.overridden else place.of(".".join(location[:-1]))
        return f"{where}: unknown key '{location[-1]}'. {choose(location[-1], names)}"
    if problem["type"] in ("missing", "missing_argument"):
        needed = "Every recipe needs algorithm, model and data.train." if key in NEEDED else "Add it."
        return f"{place.of(key)}: missing. {needed}"
    if problem["type"] == "literal_error":
        choices = [choice.strip(" '") for choice in problem["ctx"]["expected"].replace(" or ", ",").split(",")]
        return f"{place.of(key)}: unknown value {shown(value)}. {choose(value, choices)}"
    if problem["type"] == "value_error":
        return f"{place.of(key)}: {_lower(problem['msg'].removeprefix('Value error, ')).removesuffix('.')}."
    return f"{place.of(key)}: {shown(value)} is not possible: {_lower(problem['msg'])}."


def _dataclass_at(kind: Any, location: list[str]) -> Any:
    """The dataclass that holds the key at `location`, walking down from `kind`."""
    for name in (part for part in location if not part.isdigit()):  # a number is a place in a list
        hint = get_type_hints(kind)[name]
        kind = next(_dataclasses(hint), hint)
    return kind


def _dataclasses(hint: Any) -> Iterator[Any]:
    """The dataclasses that a hint such as `tuple[SourceSpec, ...] | None` speaks of."""
    if dataclasses.is_dataclass(hint):
        yield hint
    for part in get_args(hint):
        yield from _dataclasses(part)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
