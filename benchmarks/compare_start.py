"""How long does `flipguard compare` take on 1,000 rows, from start to exit? Appends one row to results.csv.

The command is run several times as a process of its own; the median counts. The peer is the Python interpreter that
does nothing, in the same run.
"""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from recording import append, made

HERE = Path(__file__).parent
ROWS, RUNS = 1000, 7


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        old, new = (write(Path(folder) / name, shift) for name, shift in (("old.jsonl", 0.0), ("new.jsonl", 0.07)))
        command = [sys.executable, "-m", "flipguard", "compare", old, new, "--out", f"{folder}/report"]
        seconds = median(command)
    peer = median([sys.executable, "-c", "pass"])
    row = {
        **made(),
        "python": platform.python_version(),
        "benchmark": "compare_start",
        "rows": ROWS,
        "seconds": f"{seconds:.3f}",
        "peer": "python -c pass",
        "peer_seconds": f"{peer:.3f}",
    }
    append(HERE / "results.csv", row)


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


if __name__ == "__main__":
    main()
