"""What a recipe says of its data: which sources, in which format, how much of each, and what becomes of bad rows."""

from __future__ import annotations

import re
from dataclasses import asdict, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass

from flipguard.errors import choose
from flipguard.train.formats import FORMATS

STRICT = ConfigDict(extra="forbid")
NAMES = ("auto", *(item.name for item in FORMATS))
SHORT = re.compile(r"(?P<path>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w.-]+))?(?::(?P<split>[\w.\[\]%:+-]+))?")

Action = Literal["leave_out", "keep", "stop"]
Lossless = Literal["leave_out", "stop"]


def _known(name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"unknown format {name!r}. {choose(name, list(NAMES))}")
    return name


FormatName = Annotated[str, BeforeValidator(_known)]


@dataclass(frozen=True, config=STRICT)
class SplitSpec:
    """One part of the rows, as DeepSpeed-Chat parts them: over one seeded shuffle, in the proportions `parts`."""

    parts: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    take: int = Field(ge=1)
    seed: int = Field(default=1234, ge=0, lt=2**32)

    @field_validator("take")
    @classmethod
    def _one_of_the_parts(cls, take: int, said: Any) -> int:
        if take > len(said.data.get("parts", ())):
            raise ValueError(f"there is no part {take}; they count from 1 to {len(said.data.get('parts', ()))}")
        return take


@dataclass(frozen=True, config=STRICT)
class HoldOutSpec:
    """`rows` rows drawn at random: those (`held_out`), or all others (`rest`)."""

    rows: int = Field(ge=1)
    take: Literal["rest", "held_out"] = "rest"
    seed: int = 42


@dataclass(frozen=True, config=STRICT)
class SourceSpec:
    """One file, folder or hub data set, and how much of it.

    `weight` is how often each row comes: 1 once, 0.5 half of the rows, 2.5 all twice and half of them once more.
    `where` keeps rows whose columns have these values; `max_rows` reads no further than that many rows.
    """

    path: str
    name: str | None = None
    split: str | None = None
    revision: str | None = None
    format: FormatName | None = None
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    where: dict[str, str | int | bool] = field(default_factory=dict)
    max_rows: int | None = Field(default=None, ge=1)
    hold_out: HoldOutSpec | None = None
    relabel: str | None = None

    def __str__(self) -> str:
        return self.path + (f"@{self.revision}" if self.revision else "") + (f":{self.split}" if self.split else "")

    def said(self) -> str | dict[str, Any]:
        """As a recipe would say it: the path alone where nothing else is said."""
        plain = SourceSpec(self.path)
        return self.path if self == plain else {"path": self.path} | _changes(self, plain)


def _changes(one: Any, other: Any) -> dict[str, Any]:
    left, right = asdict(one), asdict(other)
    return {name: value for name, value in left.items() if value != right[name]}


def _sources(value: Any) -> Any:
    """One or several, each a path or a mapping, as a list of mappings."""
    if value is None or isinstance(value, SourceSpec):
        return value if value is None else (value,)
    several = value if isinstance(value, list | tuple) else [value]
    return [{"path": item} if isinstance(item, str) else item for item in several]


Sources = Annotated[tuple[SourceSpec, ...], BeforeValidator(_sources), Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class FaultPolicy:
    """What becomes of rows with each fault: left out and counted, kept and counted, or an error."""

    malformed: Lossless = "stop"
    empty_prompt: Action = "leave_out"
    empty_reply: Action = "leave_out"
    differing_prompts: Action = "leave_out"
    equal_replies: Action = "leave_out"
    over_long: Lossless = "leave_out"
    duplicate: Action = "keep"
    contradiction: Action = "keep"
    tied_scores: Action = "keep"
    role_marker: Action = "keep"
    repeated_speaker: Action = "keep"
    displacement_risk: Action = "keep"


@dataclass(frozen=True, config=STRICT)
class DataSpec:
    """Which rows, and how long they may be, in tokens."""

    train: Sources
    eval: Sources | None = None
    format: FormatName = "auto"
    chat: bool = False
    max_prompt_tokens: int = Field(default=512, ge=1)
    max_completion_tokens: int = Field(default=512, ge=1)
    split: SplitSpec | None = None
    seed: int = Field(default=1234, ge=0, lt=2**32)
    streaming: bool = False
    workers: int | None = Field(default=None, ge=1)
    displacement_distance: float = Field(default=0.1, ge=0, le=1)
    faults: FaultPolicy = field(default_factory=FaultPolicy)

    def said(self) -> dict[str, Any]:
        """As a recipe would say it, with every default."""
        whole = asdict(self)
        for key, sources in (("train", self.train), ("eval", self.eval or ())):
            said = {str(number): source.said() for number, source in enumerate(sources)}
            whole[key] = said.get("0") if len(sources) < 2 else said
        return whole

    def named(self) -> dict[str, SourceSpec]:
        """Every source by its key in the recipe: `data.train`, or `data.train.1` where there are several."""
        return {
            key if len(sources) == 1 else f"{key}.{number}": source
            for key, sources in (("data.train", self.train), ("data.eval", self.eval or ()))
            for number, source in enumerate(sources)
        }
