"""Preference pairs as annotators would make them: two samples each, ordered by a coin that favours the better one.

The coin is Bradley and Terry's, P(a over b) = σ(scale · (r(a) − r(b))), so that some pairs are ordered wrongly, and the
closer the two, the more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flipguard.errors import DataError, shown
from flipguard.files import read_jsonl, write_jsonl
from flipguard.records import Message, Row
from flipguard.sandbox.reward import true_reward
from flipguard.sandbox.world import seeded

SCALE = 5.0  # a whole point of reward decides 99.3 % of the coins, a third of a point 84 %


@dataclass(frozen=True)
class PairCounts:
    """What became of the samples, taken two by two.

    Attributes:
        pairs: written.
        identical: both samples said the same, so there is nothing to prefer.
        unfinished: a sample is empty, was cut off, failed, or is missing.
        misordered: written pairs whose chosen answer is the worse one: the coin's mistakes.
    """

    pairs: int
    identical: int
    unfinished: int
    misordered: int


def make_pairs(generations: Path, out: Path, *, seed: int, scale: float = SCALE) -> PairCounts:
    """Turn the samples of each prompt into preference pairs.

    Args:
        generations: generation rows; `repeat` 0 and 1 of each prompt are its first pair, 2 and 3 its second, and so on.
        out: where the pairs go: prompt, chosen and rejected as conversations, and both true rewards.
        seed: of the coins; each pair has its own, so the order of the rows does not matter.
        scale: of the rewards within the coin; 0 tosses a fair one.

    Raises:
        DataError: a row is no generation, comes twice, or asks what this world does not know; or `scale` is negative
            or no number.
    """
    if not 0 <= scale < math.inf:
        raise DataError(f"scale: {scale} is not possible: it must be a number of at least 0.")
    written: list[Row] = []
    identical = unfinished = 0
    for (_, number), samples in _samples(generations).items():
        if len(samples) < 2 or not all(_finished(row) for row in samples.values()):
            unfinished += 1
        elif samples[0]["completion"] == samples[1]["completion"]:
            identical += 1
        else:
            coin = seeded(seed, "coin", samples[0]["id"], *([number] if number else []))
            written.append(_ordered(generations, samples[0], samples[1], coin=coin.random(), scale=scale))
    write_jsonl(out, written)
    misordered = sum(row["chosen_reward"] < row["rejected_reward"] for row in written)
    return PairCounts(len(written), identical, unfinished, misordered)


def chance_of_first(first: float, second: float, *, scale: float = SCALE) -> float:
    """Bradley and Terry's probability that the first of two rewards is preferred.

    >>> chance_of_first(1.0, 1.0), round(chance_of_first(1.0, 0.0), 3)
    (0.5, 0.993)
    """
    return 0.5 * (1.0 + math.tanh(0.5 * scale * (first - second)))


def _samples(generations: Path) -> dict[tuple[Any, int], dict[int, Row]]:
    """Two rows by prompt and number of the pair, in the order of first appearance; each row by 0 or 1."""
    found: dict[tuple[Any, int], dict[int, Row]] = {}
    for line, row in read_jsonl(generations):
        missing = [key for key in ("id", "prompt", "completion", "finish_reason", "repeat") if key not in row]
        if missing:
            raise DataError(
                f"{generations}:{line}: no '{missing[0]}'. Each row needs what `flipguard generate` writes."
            )
        repeat = row["repeat"]
        if not isinstance(repeat, int) or isinstance(repeat, bool) or repeat < 0:
            raise DataError(f"{generations}:{line}: repeat {shown(repeat)} is no number of a sample: 0, 1, 2 ...")
        samples = found.setdefault((row["id"], repeat // 2), {})
        if repeat % 2 in samples:
            raise DataError(f"{generations}:{line}: id {shown(row['id'])} has repeat {repeat} twice. Keep one.")
        samples[repeat % 2] = row
    return found


def _finished(row: Row) -> bool:
    return row["finish_reason"] == "stop" and bool(row["completion"].strip())


def _ordered(generations: Path, first: Row, second: Row, *, coin: float, scale: float) -> Row:
    rewards = true_reward([first["prompt"], second["prompt"]], [first["completion"], second["completion"]])
    if rewards[0] is None or rewards[1] is None:
        raise DataError(
            f"{generations}: id {shown(first['id'])}: {shown(first['prompt'])} is no prompt of the sandbox."
        )
    scored = [(first["completion"], rewards[0]), (second["completion"], rewards[1])]
    if coin >= chance_of_first(rewards[0], rewards[1], scale=scale):
        scored.reverse()
    (chosen, chosen_reward), (rejected, rejected_reward) = scored
    return {
        "id": first["id"],
        "prompt": first["prompt"],
        "chosen": _said(chosen),
        "rejected": _said(rejected),
        "category": first.get("category", []),
        "chosen_reward": chosen_reward,
        "rejected_reward": rejected_reward,
    }


def _said(completion: str) -> list[Message]:
    return [{"role": "assistant", "content": completion}]
