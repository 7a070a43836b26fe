"""Does the gate beat plain distillation? Both at several weights, so that curves are compared, not points.

    .venv/bin/python experiments/sandbox_gate_or_kd/run.py --demos demos --seeds 0 1 2

Uses the SFT models and pairs that experiments/sandbox_dpo left behind, and compares on the validation prompts, so that
no weight is chosen on what the demo is judged by. results.csv beside this file gets one row per seed, gate and weight.
"""

import argparse
import csv
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from flipguard.demo import ANSWER_TOKENS, BATCH, JUDGE
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.generate import GenerateOptions, generate
from flipguard.evaluate.judge import JudgeOptions, judge

HERE = Path(__file__).parent
GATES = {"flip": "FlipGuard", "always": "KD"}
FIELDS = ["date", "commit", "seed", "method", "gamma", "n", "negative_flips", "positive_flips", "nfr", "win_rate"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demos", type=Path, required=True, help="folder with seed0, seed1, ...")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--gammas", type=float, nargs="+", default=[0.01, 0.02, 0.05, 0.1, 0.2])
    arguments = parser.parse_args()
    rows = []
    for seed in arguments.seeds:
        for gamma in arguments.gammas:
            for gate in GATES:
                rows.append(measured(arguments.demos / f"seed{seed}", seed, gate, gamma))
                print(rows[-1], flush=True)
                write(rows)


def measured(folder: Path, seed: int, gate: str, gamma: float) -> dict[str, object]:
    """Train with one gate and weight, compare with the SFT model."""
    from flipguard.train.run import train

    os.environ["FLIPGUARD_CACHE"] = str(folder / "cache")
    name = f"{gate}_{gamma:g}"
    overrides = {
        "constraint.gate": gate,
        "constraint.gamma": str(gamma),
        "trainer.output_dir": str(folder / "runs" / name),
    }
    trained = train(folder / "recipes" / "dpo.yaml", overrides, resume=True)
    old, new = answers(folder, folder / "runs" / "sft"), answers(folder, trained.path)
    judgments = folder / "judgments" / f"{name}_validation.jsonl"
    judge(JudgeOptions(judge=JUDGE, old=old, new=new, out=judgments))
    comparison = compare_files(judgments, None, Options()).comparison
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=HERE
    ).stdout.strip()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit,
        "seed": seed,
        "method": GATES[gate],
        "gamma": gamma,
        "n": comparison.n,
        "negative_flips": comparison.negative_flips,
        "positive_flips": comparison.positive_flips,
        "nfr": comparison.nfr.value,
        "win_rate": comparison.win_rate.value,
    }


def answers(folder: Path, model: Path) -> Path:
    """Greedy answers to the validation prompts."""
    out = folder / "answers" / f"{model.name}_validation.jsonl"
    prompts = folder / "data" / "validation_prompts.jsonl"
    generate(
        GenerateOptions(model=str(model), prompts=prompts, out=out, max_new_tokens=ANSWER_TOKENS, batch_size=BATCH)
    )
    return out


def write(rows: list[dict[str, object]]) -> None:
    with (HERE / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
