"""How long does `flipguard compare` take on a million pairs with text, against parsing alone?

python benchmarks/compare_million.py [ROWS ...]        (default: 10000 100000 1000000)

Two files of about 1 kB a row are written to a temporary folder. The command runs as a process of its own, from start to
exit; the peer is orjson, the library that parses, over every line of both files, in the same run. Memory is the highest
resident set of the command's processes together, sampled. One row per size goes to compare_million.csv.
"""

import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import orjson
from recording import append, made

HERE = Path(__file__).parent
RESULTS = HERE / "compare_million.csv"
SENTENCES = (
    "Water boils at a lower temperature high up in the mountains, so rice takes longer there.",
    "First measure the flour, then add the milk slowly while stirring, until no lumps are left.",
    "The library opens at nine and closes at six, except on Sundays, when it stays closed.",
    "A prime number has exactly two divisors: one and itself.",
    "You should see a doctor if the pain lasts longer than three days or gets worse at night.",
    "In 1869 the railway reached the coast, and the towns along the river lost their trade.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "Check that the cable is plugged in, restart the router, and wait about two minutes.",
    "The café’s owner — a former sailor — painted the shutters blue every spring.",
    "To find the average, add all the values up and divide by how many there are.",
    "Her second novel was not as successful, yet critics praised its quiet humour.",
    "I would start with the smallest task, since finishing something early gives you momentum.",
    "Gold does not rust, which is one reason why it has been used for coins for so long.",
    "Plants need light, but most house plants suffer when they stand in direct sun all day.",
    "The function returns the index of the first match, or minus one if there is none.",
    "节约用水可以从小事做起，比如修理漏水的龙头，缩短淋浴时间。",
)
REFUSAL = "I'm sorry, but I can't help with that request."


def main() -> None:
    for rows in [int(word) for word in sys.argv[1:]] or [10_000, 100_000, 1_000_000]:
        with tempfile.TemporaryDirectory() as folder:
            files = [write(Path(folder) / f"{name}.jsonl", rows, seed) for seed, name in enumerate(("old", "new"))]
            parsing = parse(files)
            seconds, peak = compare(files, folder)
            size = sum(file.stat().st_size for file in files) / 2
        record(rows, size, parsing, seconds, peak)


def write(path: Path, rows: int, new: int) -> Path:
    both, own = random.Random(0), random.Random(1 + new)
    with path.open("wb", buffering=1 << 20) as file:
        for number in range(rows):
            prompt = " ".join(both.choices(SENTENCES, k=3))
            completion = REFUSAL if own.random() < 0.03 + 0.01 * new else " ".join(own.choices(SENTENCES, k=7))
            row = {
                "id": f"q{number}",
                "prompt": prompt,
                "completion": completion,
                "score": round(both.random() + own.gauss(0, 0.1), 6),
                "category": f"kind {number % 12}",
            }
            file.write(orjson.dumps(row) + b"\n")
    return path


def parse(files: list[Path]) -> float:
    """Seconds that orjson needs for every line of both files; also brings them into the page cache."""
    best = float("inf")
    for _ in range(2):
        started = time.perf_counter()
        for path in files:
            with path.open("rb") as file:
                for line in file:
                    orjson.loads(line)
        best = min(best, time.perf_counter() - started)
    return best


def compare(files: list[Path], folder: str) -> tuple[float, int]:
    """Seconds from start to exit, and the highest resident memory of all its processes together, in bytes."""
    command = [sys.executable, "-m", "flipguard", "compare", *map(str, files), "--out", f"{folder}/report"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak, watching = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not watching.wait(0.05):
            peak = max(peak, resident(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - started
    watching.set()
    watcher.join()
    if code:
        raise SystemExit(f"flipguard compare ended with {code}")
    return seconds, peak


def resident(pid: int) -> int:
    """Bytes of memory of a process and its children, on Linux."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(resident(int(child)) for child in children)


def record(rows: int, size: float, parsing: float, seconds: float, peak: int) -> None:
    row = {
        **made(),
        "python": platform.python_version(),
        "rows": rows,
        "megabytes_a_side": round(size / 1e6),
        "seconds": round(seconds, 2),
        "orjson_seconds": round(parsing, 2),
        "ratio": round(seconds / parsing, 1),
        "peak_megabytes": round(peak / 1e6),
    }
    append(RESULTS, row)


if __name__ == "__main__":
    main()
