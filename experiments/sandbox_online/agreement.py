"""How often does a reward model agree with the truth? By category, on pairs of samples whose true rewards differ.

    .venv/bin/python experiments/sandbox_online/agreement.py worlds/seed0/runs/reward answers.jsonl

The answers are two or more samples to prompts that it was not trained on, by `flipguard generate --samples 4`.
"""

import sys
from collections import defaultdict
from pathlib import Path

from flipguard.files import read_jsonl
from flipguard.rewards.opening import open_reward
from flipguard.rewards.spec import RewardSpec
from flipguard.sandbox.reward import true_reward


def main(model: str, *files: str) -> None:
    """Print a line per category and one for all."""
    for file in files:
        found = agreement(model, Path(file))
        print(file, {name: f"{sum(right) / len(right):.3f} of {len(right)}" for name, right in sorted(found.items())})


def agreement(model: str, file: Path) -> dict[str, list[float]]:
    """By category, 1 where the reward model prefers the truly better answer, 0.5 where it says the same, else 0."""
    rows = [row for _, row in read_jsonl(file)]
    asked = [row["prompt"] for row in rows], [row["completion"] for row in rows]
    scores, truths = open_reward(RewardSpec(path=model, batch_size=256), model).function(*asked), true_reward(*asked)
    samples = defaultdict(list)
    for row, score, truth in zip(rows, scores, truths, strict=True):
        samples[row["id"]].append((row["category"][-1], score, truth))
    found = defaultdict(list)
    for graded in samples.values():
        for (category, score, truth), (_, other, other_truth) in zip(graded[::2], graded[1::2], strict=True):
            if truth != other_truth:
                right = 0.5 if score == other else float((score > other) == (truth > other_truth))
                found[category].append(right)
                found["all"].append(right)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
