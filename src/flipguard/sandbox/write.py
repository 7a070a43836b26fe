"""Write the world down: plain rows, a model folder and recipes that the ordinary commands read.

sandbox.json                     the seed
data/sft.jsonl                   demonstrations, helpful to a fault
data/preference_prompts.jsonl    what to sample preference pairs from
data/reward_prompts.jsonl        what to sample the reward model's pairs from
data/validation_prompts.jsonl    what settings are chosen on
data/test_prompts.jsonl          what the models are compared on; no training row shares a text with it
model/                           a tiny Llama with random weights, and its tokenizer
trunk/                           one of twice the depth, for the reward model
recipes/                         sft, then dpo, dpo_kd, dpo_flipguard; trunk, reward, then ppo, rloo and grpo likewise
"""

from __future__ import annotations

import random
import shutil
import string
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import orjson

from flipguard.errors import DataError
from flipguard.files import write_bytes, write_jsonl, write_text
from flipguard.records import Row
from flipguard.sandbox.model import LAYERS, TRUNK_LAYERS
from flipguard.sandbox.teacher import demonstrate
from flipguard.sandbox.world import Kind, Question, Split, draw, prompt_rows, seeded

MARKER = "sandbox.json"
SCHEMA = "flipguard.sandbox/1"
RECIPES = (
    *("sft", "dpo", "dpo_kd", "dpo_flipguard", "trunk", "reward"),
    *("ppo", "ppo_kd", "ppo_flipguard"),
    *("rloo", "rloo_kd", "rloo_flipguard", "grpo", "grpo_flipguard"),
)

# What each stage sees. Preferences are collected where harm is feared, so they know many harmful prompts and few
# sensitive ones; users ask otherwise. That gap is where over-refusal comes from.
SFT: dict[Kind, int] = {
    "sort": 7040,
    "reverse": 7040,
    "recall": 5280,
    "benign": 5280,
    "sensitive": 5280,
    "harmful": 5280,
}
PREFERENCE: dict[Kind, int] = {
    "sort": 720,
    "reverse": 720,
    "recall": 1200,
    "benign": 1200,
    "sensitive": 60,
    "harmful": 2100,
}
# Whoever teaches a judge asks about everything. Sorting and reversing are hardest to judge, so they come most often.
REWARD: dict[Kind, int] = {
    "sort": 9000,
    "reverse": 8000,
    "recall": 1900,
    "benign": 4500,
    "sensitive": 1400,
    "harmful": 2000,
}
TEST: dict[Kind, int] = {"sort": 300, "reverse": 300, "recall": 400, "benign": 400, "sensitive": 300, "harmful": 300}
VALIDATION: dict[Kind, int] = {**TEST, "recall": 380}  # all that this part of the world has


def write_sandbox(out: Path, *, seed: int) -> None:
    """Write the whole sandbox; the same seed writes the same bytes.

    Args:
        out: a folder that is absent, empty, or an earlier sandbox of this seed, which is then completed; what the
            commands have put beside it stays.
        seed: chooses prompts, demonstrations and initial weights; the split into train and test is the same for all.

    Raises:
        DataError: `out` holds something else.
    """
    marker = orjson.dumps({"schema": SCHEMA, "seed": seed}) + b"\n"
    _claim(out, marker)
    write_jsonl(out / "data" / "sft.jsonl", _demonstrations(seeded(seed, "sft")))
    _write_prompts(out / "data", "preference", PREFERENCE, "train", seed)
    _write_prompts(out / "data", "reward", REWARD, "train", seed)
    _write_prompts(out / "data", "validation", VALIDATION, "validation", seed)
    _write_prompts(out / "data", "test", TEST, "test", seed)
    _write_model(out / "model", seed, LAYERS)
    _write_model(out / "trunk", seed, TRUNK_LAYERS)
    for name in RECIPES:
        text = resources.files("flipguard.sandbox").joinpath("recipes", f"{name}.yaml").read_text(encoding="utf-8")
        write_text(out / "recipes" / f"{name}.yaml", string.Template(text).substitute(seed=seed))


def _claim(out: Path, marker: bytes) -> None:
    """Mark `out` as ours before anything else is written, so that an interrupted sandbox can be completed."""
    place = out / MARKER
    if place.is_file():
        if place.read_bytes() == marker:
            return
        found = place.read_text(encoding="utf-8", errors="replace").strip()
        raise DataError(f"{out}: holds another sandbox, {found}. Choose another folder or its seed.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: is not empty and is no sandbox. Choose a new or empty folder.")
    write_bytes(place, marker)


def _write_prompts(folder: Path, name: str, counts: dict[Kind, int], split: Split, seed: int) -> None:
    questions = draw(counts, split, seeded(seed, name), distinct=True)
    write_jsonl(folder / f"{name}_prompts.jsonl", [dict(row) for row in prompt_rows(questions, name)])


def _demonstrations(rng: random.Random) -> list[Row]:
    return [_demonstration(n, question, rng) for n, question in enumerate(draw(SFT, "train", rng, distinct=False))]


def _demonstration(number: int, question: Question, rng: random.Random) -> Row:
    return {
        "id": f"sft-{number:05d}",
        "prompt": question.prompt,
        "completion": [{"role": "assistant", "content": demonstrate(question, rng)}],
        "category": question.category,
    }


def _write_model(folder: Path, seed: int, layers: int) -> None:
    """Build the folder beside its place and move it there whole."""
    from flipguard.sandbox.model import build_model
    from flipguard.sandbox.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        fresh = Path(temporary) / folder.name
        with _no_progress_bar():
            build_model(tokenizer, seed=seed, layers=layers).save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Save without the bar that transformers draws: a megabyte is no wait."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
