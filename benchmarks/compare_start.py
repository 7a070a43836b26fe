"""How long does `flipguard compare` take on 1,000 rows, from start to exit? Appends one row to results.csv.

The command is run several times as a process of its own; the median counts. The peer is the Python interpreter that
does nothing, in the same run.
"""

import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
ROWS, RUNS = 1000, 7
FIELDS = ["date", "commit", "device", "python", "benchmark", "rows", "seconds", "peer", "peer_seconds"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        old, new = (write(Path(folder) / name, shift) for name, shift in (("old.jsonl", 0.0), ("new.jsonl", 0.07)))
        command = [sys.executable, "-m", "flipguard", "compare", old, new, "--out", f"{folder}/report"]
        seconds = median(command)
    peer = median([sys.executable, "-c", "pass"])
    record(seconds, peer)
    print(f"{ROWS} rows: {seconds:.2f} s (an interpreter that does nothing: {peer:.2f} s)")


def write(path: Path, shift: float) -> str:
    rows = (
        {
            "id": number,
            "score": (number * 37 % 101) / 101 + shift * (number % 7 - 3),
            "category": f"kind {number % 5}",
            "prompt": f"question {number} " * 10,
            "completion": f"answer {number * shift} " * 40,
        }
        for number in range(ROWS)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def median(command: list[str]) -> float:
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def record(seconds: float, peer: float) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=HERE
    ).stdout.strip()
    path = HERE / "results.csv"
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(FIELDS)
        today, device = datetime.now(UTC).date().isoformat(), f"{os.cpu_count()} x {platform.machine()}"
        python = platform.python_version()
        writer.writerow(
            [today, commit, device, python, "compare_start", ROWS, f"{seconds:.3f}", "python -c pass", f"{peer:.3f}"]
        )


if __name__ == "__main__":
    main()
