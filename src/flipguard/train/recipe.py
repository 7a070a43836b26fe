"""A recipe: one YAML file that says everything about one training stage, checked before any compute is spent.

Recipes are read as YAML 1.2 (`off` is a word, `1e-6` is a number). Every error names the file, the key, the value
and the choices. Relative paths in a file start at the file's folder; in a command-line override, at the current one.
"""

from __future__ import annotations

from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainValidator, ValidationInfo
from pydantic.dataclasses import dataclass

from flipguard.errors import RecipeError, shown
from flipguard.rewards.spec import RewardSpec
from flipguard.train import checking
from flipguard.train.constraintspec import ConstraintSpec, Weight
from flipguard.train.dataspec import DataSpec
from flipguard.train.onlinespec import DEFAULT_EPSILON, ONLINE, PPO_ONLY, RolloutSpec, check_sections
from flipguard.weights import looks_local

STRICT = ConfigDict(extra="forbid")


def _number_or_flag(value: Any, said: ValidationInfo) -> Any:
    """`true` and `false` stay what they are; "1e-3" is a number. TRL's online losses take more."""
    if said.data.get("algorithm") in ONLINE:
        return value
    try:
        return value if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{shown(value)} is not possible: it must be a number, or true or false") from None


LossValue = Annotated[Any, PlainValidator(_number_or_flag)]

Algorithm = Literal[
    "sft", "reward",
    "dpo", "ipo", "hinge", "dpop", "rpo", "apo_zero", "apo_down", "nca", "sppo", "simpo", "orpo", "cpo", "kto",
    "ppo", "rloo", "grpo",
]  # fmt: skip
UNGUARDED = ("sft", "reward")
"""Algorithms before alignment: there is nothing yet that could get worse."""

NEEDS_A_REFERENCE = ("constraint", "loss", "reference", "select", "speed")
"""Sections that say nothing to them."""

MODELS = ("model", "reference", "reward")
"""Sections that may be a path alone."""

URLS = ("http://", "https://")

Switch = Literal["auto", "off"]


def _tokens_or_switch(value: Any) -> int | str:
    if value in ("auto", "off"):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError(f"{shown(value)} is not possible: it must be auto, off, or a number of tokens, at least 1")


SliceTokens = Annotated[Literal["auto", "off"] | int, PlainValidator(_tokens_or_switch)]


@dataclass(frozen=True, config=STRICT)
class ModelSpec:
    """Which weights: a folder, or a hub id with an optional revision.

    Training keeps weights in float32 unless told otherwise; `trainer.bf16` computes in bfloat16 on top of that.
    `quantization: nf4` keeps them in 4 bits, on a GPU, and trains an adapter (QLoRA, arXiv 2305.14314).
    """

    path: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    attn_implementation: str | None = None
    quantization: Literal["nf4"] | None = None


@dataclass(frozen=True, config=STRICT)
class SelectSpec:
    """Which checkpoint is kept: the one with the lowest negative flip rate among those that win often enough.

    `scorer` is a reward model, an endpoint or `package.module:function`; `template` is that of `flipguard generate`.
    """

    prompts: Path
    scorer: str
    min_win_rate: float = Field(default=0.0, ge=0, le=1)
    margin: Weight = 0.0
    max_new_tokens: int = Field(default=256, ge=1)
    template: Literal["auto", "off"] = "auto"


@dataclass(frozen=True, config=STRICT)
class SpeedSpec:
    """Ways to the same numbers that cost less; `auto` takes one where the model allows it, `off` never."""

    prefix_sharing: Switch = "auto"
    packing: Switch = "auto"
    tiled_head: Switch = "auto"
    slice_tokens: SliceTokens = "auto"
    reference_cache: Switch = "auto"


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """One training stage. `loss`, `peft` and `trainer` go unchanged to the loss, LoraConfig and TrainingArguments."""

    algorithm: Algorithm
    model: ModelSpec
    data: DataSpec
    reference: ModelSpec | None = None
    loss: dict[str, LossValue] = field(default_factory=dict)
    constraint: ConstraintSpec = field(default_factory=ConstraintSpec)
    speed: SpeedSpec = field(default_factory=SpeedSpec)
    peft: dict[str, Any] | None = None
    trainer: dict[str, Any] = field(default_factory=dict)
    select: SelectSpec | None = None
    reward: RewardSpec | None = None
    critic: str | None = None
    pretraining: str | None = None
    rollout: RolloutSpec = field(default_factory=RolloutSpec)

    @property
    def output_dir(self) -> Path:
        """Where the trained model goes."""
        return Path(self.trainer["output_dir"])

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain data, for the model card and to recognise an interrupted run."""
        said = asdict(self) | {"data": self.data.said()}
        if self.select is not None:
            said["select"] |= {"prompts": str(self.select.prompts)}
        unsaid = NEEDS_A_REFERENCE if self.algorithm in UNGUARDED else ()
        unsaid = (*unsaid, *(() if self.algorithm in ONLINE else ("reward", "rollout")))
        unsaid = (*unsaid, *(() if self.algorithm == "ppo" else PPO_ONLY))
        return {name: value for name, value in said.items() if name not in unsaid}


def load_recipe(path: Path, overrides: dict[str, str] | None = None) -> Recipe:
    """Read, override and check a recipe.

    Args:
        path: the YAML file.
        overrides: dotted key to YAML value, as in `--constraint.gamma 0.1`.

    Raises:
        RecipeError: the file cannot be read, or a key or value is not possible.
    """
    content = checking.read_yaml(path)
    _paths_from(content, path.parent)
    changed = checking.override(content, overrides or {})
    _paths_from(changed, Path())
    checking.merge(content, changed)
    _spell_out_models(content)
    if content.get("algorithm") in ONLINE and isinstance(content.setdefault("constraint", {}), dict):
        content["constraint"].setdefault("epsilon", DEFAULT_EPSILON)
    content.setdefault("trainer", {})
    if isinstance(content["trainer"], dict):
        content["trainer"].setdefault("output_dir", str(path.parent / path.stem))
    place = checking.Place(str(path), frozenset(overrides or {}))
    recipe: Recipe = checking.build(Recipe, content, place)
    _check_folders(recipe, place)
    if recipe.model.quantization is not None and recipe.peft is None:
        raise RecipeError(f"{place.of('model.quantization')}: 4-bit weights cannot be trained. Add a section 'peft'.")
    for section in NEEDS_A_REFERENCE:
        if recipe.algorithm in UNGUARDED and section in content:
            raise RecipeError(f"{path}: {section}: has no meaning for '{recipe.algorithm}'; remove the section.")
    check_sections(recipe.algorithm, content, recipe.data.named(), place)
    return recipe


def _check_folders(recipe: Recipe, place: checking.Place) -> None:
    """The output folder is a path of its own, never that of a model it starts from."""
    target = recipe.trainer["output_dir"]
    if not isinstance(target, str) or not target:
        raise RecipeError(f"{place.of('trainer.output_dir')}: {target!r} is no folder. Name one.")
    for spec in (recipe.model, recipe.reference):
        if spec is not None and Path(spec.path).resolve() == Path(target).resolve():
            raise RecipeError(f"{place.of('trainer.output_dir')}: {target} is the model's own folder. Name another.")


def _paths_from(content: dict[str, Any], folder: Path) -> None:
    """Make every path in `content` that exists relative to `folder`, or looks local, start there."""
    for key in MODELS:
        value = content.get(key)
        if isinstance(value, dict):
            _anchor(value, "path", folder)
        else:
            _anchor(content, key, folder)
    for key in PPO_ONLY:
        _anchor(content, key, folder)
    sections = {
        "constraint": ("flips",),
        "trainer": ("output_dir", "logging_dir"),
        "select": ("prompts", "scorer"),
    }
    for section, keys in sections.items():
        if isinstance(content.get(section), dict):
            for key in keys:
                _anchor(content[section], key, folder, always=section == "trainer")
    if isinstance(content.get("data"), dict):
        for key in ("train", "eval"):
            _anchor_sources(content["data"], key, folder)


def _anchor_sources(data: dict[str, Any], key: str, folder: Path) -> None:
    """A source is a path, a mapping with one, or a list of either."""
    said = data.get(key)
    if isinstance(said, list):
        for number, item in enumerate(said):
            said[number] = item if isinstance(item, dict) else {"path": item}
    for item in said if isinstance(said, list) else [said]:
        if isinstance(item, dict):
            _anchor(item, "path", folder)
    _anchor(data, key, folder)


def _anchor(section: dict[str, Any], key: str, folder: Path, *, always: bool = False) -> None:
    value = section.get(key)
    if not isinstance(value, str) or value.startswith(URLS):
        return
    path = Path(value).expanduser()
    if always or looks_local(value) or (folder / path).exists():
        section[key] = _spelled(_tidy(folder / path), local=looks_local(value))


def _spelled(path: Path, *, local: bool) -> str:
    """`path` as text; what was said as a path stays one and is never taken for a hub id: `./m`, not `m`."""
    text = str(path)
    return f"./{text}" if local and not looks_local(text) else text


def _tidy(path: Path) -> Path:
    """`a/b/../c` as `a/c`, without asking the disk (symbolic links stay as they are named)."""
    import os.path

    return Path(os.path.normpath(path))


def _spell_out_models(content: dict[str, Any]) -> None:
    for key in MODELS:
        if isinstance(content.get(key), str):
            content[key] = {"path": content[key]}
