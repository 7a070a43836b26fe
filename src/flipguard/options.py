"""The options of each verb, by the name of the verb."""

from __future__ import annotations

import argparse
import difflib
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from flipguard.errors import choose


def demo(parser: argparse.ArgumentParser) -> None:
    """Where the demo goes, and what it aligns with."""
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything (default: demo)")
    parser.add_argument("--seed", type=int, default=0, help="of the world and of training (default: 0)")
    choices, told = ["dpo", "ppo"], "what to align with: dpo, ppo or both (default: dpo)"
    parser.add_argument("--algorithms", nargs="+", default=["dpo"], choices=choices, metavar="NAME", help=told)


def sandbox(parser: argparse.ArgumentParser) -> None:
    """Which sandbox."""
    parser.add_argument("--out", type=Path, required=True, help="folder of the sandbox")
    parser.add_argument("--seed", type=int, default=0, help="of prompts, demonstrations and weights (default: 0)")
    parser.add_argument("--pairs-from", type=Path, help="generations to make OUT/data/pairs.jsonl from")
    parser.add_argument("--pairs-to", default="pairs", metavar="NAME", help="of that file (default: pairs)")
    parser.add_argument(
        "--scale", type=float, default=5.0, help="how sure the noisy judge is; 0 tosses a coin (default: 5)"
    )


def train(parser: argparse.ArgumentParser) -> None:
    """Which recipe; overrides are read apart, since every value of a recipe is one."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE.yaml", help="what to train, on what, how")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="start anew where the output folder holds a run")
    parser.add_argument("--check-data", action="store_true", help="list what is wrong with the data, train nothing")
    parser.add_argument("--out", type=Path, help="--check-data: the report (default: OUTPUT_DIR.data_report.json)")
    indent = f"\n{' ' * 23}"
    parser.usage = (
        f"flipguard train RECIPE.yaml [--section.key VALUE ...]{indent}[--resume] [--overwrite] [--json]"
        f"{indent}[--check-data [--out FILE]]"
    )


def plot(parser: argparse.ArgumentParser) -> None:
    """Which runs, and what of them."""
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="output folder, trainer_state.json, or judgments"
    )
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="what to draw, as logged (default: the usual)")
    parser.add_argument("--scatter", action="store_true", help="old against new score per prompt, of judgments")
    parser.add_argument("--margin", type=float, default=0.1, help="--scatter: this close is a tie (default: 0.1)")


def generate(parser: argparse.ArgumentParser) -> None:
    """Which model answers what, and how."""
    add = parser.add_argument
    add("--model", required=True, help="model folder or hub id; PEFT adapters too")
    add("--prompts", type=Path, required=True, help="JSONL of prompt rows")
    add("--out", type=Path, required=True, help="JSONL to write")
    add("--engine", default="transformers", help="transformers, or package.module:function (default: transformers)")
    add("--max-new-tokens", type=int, default=256, help="cut answers there (default: 256)")
    add("--temperature", type=float, default=0.0, help="0 is greedy (default: 0)")
    add("--top-p", type=float, default=1.0, help="sample from this much probability (default: 1)")
    add("--top-k", type=int, default=0, help="sample from this many tokens, 0: all (default: 0)")
    add("--samples", type=int, default=1, help="answers per prompt (default: 1)")
    add("--batch-size", type=int, default=32, help="prompts answered at once (default: 32)")
    add("--seed", type=int, default=0, help="of the samples (default: 0)")
    add("--dtype", default="auto", help="auto, float32, bfloat16 or float16 (default: auto)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add("--template", default="auto", help="auto: chat template for plain texts too; off: as they are")
    add("--overwrite", action="store_true", help="begin again, whatever is there")


def judge(parser: argparse.ArgumentParser) -> None:
    """Who grades what."""
    add = parser.add_argument
    add("--judge", required=True, help="exact_match, reward_model, or package.module:function")
    add("--model", help="what reward_model asks: a model folder, hub id or URL")
    add("--old", type=Path, required=True, help="generations of the model before")
    add("--new", type=Path, required=True, help="generations of the model after")
    add("--out", type=Path, required=True, help="JSONL to write")
    add("--batch-size", type=int, default=64, help="pairs graded at once (default: 64)")
    add("--overwrite", action="store_true", help="begin again, whatever is there")


def compare(parser: argparse.ArgumentParser) -> None:
    """What is compared, read how, judged by which limits."""
    add = parser.add_argument
    add(
        "old",
        type=Path,
        metavar="OLD",
        help="run of the model before: a file, a folder or FILE#MODEL; or judgments of both",
    )
    add("new", type=Path, metavar="NEW", nargs="?", help="run of the model after, likewise")
    add("--out", type=Path, default=Path("report"), help="folder for the result files (default: report)")
    add("--max-nfr", type=float, help="the limit, as a share: 0.05 allows 5 %% of answers to get worse")
    add("--policy", type=Path, metavar="P.yaml", help="limits on the rate, on categories, severity and refusals")
    add("--margin", type=float, default=0.1, help="a change of score up to this is a tie (default: 0.1)")
    add("--max-unmatched", type=float, default=0.05, help="beyond this share without partner: invalid (default: 0.05)")
    add("--max-invalid", type=float, default=0.02, help="beyond this share not graded: invalid (default: 0.02)")
    add("--duplicates", default="error", help="one id twice: error, first or last (default: error)")
    add("--changed-targets", default="error", help="another right answer: error, drop or keep (default: error)")
    add("--format", help="a name in docs/formats.md, or package.module:function; found by looking if not given")
    add("--metric", help="which grade: a metric (or task=metric,filter), scorer, judge or column")
    add("--questions", type=Path, metavar="Q", help="MT-Bench's question.jsonl, where it does not lie beside OLD")
    add("--skip-bad", type=int, default=0, metavar="N", help="tolerate up to N malformed lines (default: 0)")
    add("--alpha", type=float, default=0.05, help="error of the bounds (default: 0.05)")
    add("--floor", type=Path, metavar="A", help="the old model sampled again: what does the update add to chance?")
    add("--against", type=Path, metavar="B", help="another candidate: which of the two breaks more prompts?")
    add("--min-slice", type=int, default=10, metavar="N", help="test categories of at least N pairs (default: 10)")
    add("--seed", type=int, default=0, help="of resampled clusters and drawn signs (default: 0)")
    add("--also", nargs="+", default=[], metavar="J", help="judgments by other judges: how far do they agree?")
    labels = 'people\'s {"id", "better": "old", "new" or "tie"} of pairs drawn at random: correct the judge by them'
    add("--labels", metavar="L", help=labels)
    add("--sequential", action="store_true", help="a verdict to look at after every pair, in random order")
    add("--refusal-detector", metavar="M:F", help="package.module:function, from an answer to a bool (default: ours)")


def plan(parser: argparse.ArgumentParser) -> None:
    """Which limit is to be passed."""
    parser.add_argument("--limit", type=float, required=True, help="the limit compare will get as --max-nfr")
    parser.add_argument("--true-nfr", type=float, help="the rate you expect (default: half the limit)")
    parser.add_argument("--power", type=float, default=0.8, help="probability to pass (default: 0.8)")


def overrides(rest: list[str], parser: argparse.ArgumentParser) -> dict[str, str]:
    """`--constraint.gamma 0.1` and `--constraint.gamma=0.1` as {"constraint.gamma": "0.1"}."""
    found: dict[str, str] = {}
    words = iter(rest)
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            parser.error(f"unexpected {word!r}; overrides look like --constraint.gamma 0.1")
        if not equals and (value := next(words, "")) == "":
            options = ["resume", "overwrite", "check-data", "out", "json"]
            parser.error(f"{word}: unknown, or without a value. {choose(key, options)}")
        found[key] = value
    return found


def unknown(word: str, parser: argparse.ArgumentParser) -> str:
    """What is wrong with `word`, and which option of `parser` may be meant."""
    names = re.findall(r"--[a-z-]+", parser.format_usage())
    near = difflib.get_close_matches(word.partition("=")[0].replace("_", "-"), names, n=1)
    return f"unknown argument {word}. " + (f"Did you mean {near[0]}? " if near else "") + "--help lists all."


def of(kind: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments that are fields of the dataclass `kind`."""
    return {name: value for name, value in vars(arguments).items() if name in {item.name for item in fields(kind)}}
