"""Does the guard break less at the same win rate? DPO, DPO+KD, DPO+FlipGuard on the sandbox, several seeds.

    .venv/bin/python experiments/sandbox_dpo/run.py --seeds 0 1 2 3 4 --out demos

Each seed is one `flipguard demo`; results.csv beside this file gets one row per seed and method.
"""

import argparse
import csv
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from flipguard.demo import Demo, run_demo
from flipguard.evaluate.rivals import rivalry

HERE = Path(__file__).parent
FIELDS = [
    "date", "commit", "seed", "method", "n", "negative_flips", "positive_flips", "nfr", "win_rate",
    "worse_only_without_guard", "worse_only_with_guard", "p_nfr", "p_win_rate",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, required=True, help="folder for the demos")
    arguments = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=HERE
    ).stdout.strip()
    rows = []
    for seed in arguments.seeds:
        rows += measured(run_demo(arguments.out / f"seed{seed}", seed=seed), seed, commit)
        write(rows)
    for row in rows:
        print(f"seed {row['seed']}  {row['method']:14}  NFR {row['nfr']:6.2%}  win rate {row['win_rate']:6.2%}")


def measured(demo: Demo, seed: int, commit: str) -> list[dict[str, object]]:
    """One row per method; the tests compare FlipGuard with that method."""
    rows: list[dict[str, object]] = []
    guarded = demo.results["DPO+FlipGuard"]
    for method, result in demo.results.items():
        comparison = result.comparison
        flips = rivalry(result.pairs, guarded.pairs)
        wins = rivalry(result.pairs, guarded.pairs, "positive_flip")
        rows.append(
            {
                "date": datetime.now(UTC).date().isoformat(),
                "commit": commit,
                "seed": seed,
                "method": method,
                "n": comparison.n,
                "negative_flips": comparison.negative_flips,
                "positive_flips": comparison.positive_flips,
                "nfr": comparison.nfr.value,
                "win_rate": comparison.win_rate.value,
                "worse_only_without_guard": flips.only_first,
                "worse_only_with_guard": flips.only_second,
                "p_nfr": flips.p_value,
                "p_win_rate": wins.p_value,
            }
        )
    return rows


def write(rows: list[dict[str, object]]) -> None:
    with (HERE / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
