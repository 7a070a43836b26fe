"""How long does `flipguard compare` take on a million pairs with text, against parsing alone?

python benchmarks/compare_million.py [ROWS ...]        (default: 10000 100000 1000000)

Two files of about 1 kB a row are written to a temporary folder. The command runs as a process of its own, from start to
exit; the peer is orjson, the library that parses, over every line of both files, in the same run. Memory is the most of
the command's processes together, sampled in a run of its own. One row per size goes to compare_million.csv.
"""

import platform
import random
import subprocess
import sys
import tempfile
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
RUNS = 3  # of each, of which the fastest counts
REFUSAL = "I'm sorry, but I can't help with that request."


def main() -> None:
    for rows in [int(word) for word in sys.argv[1:]] or [10_000, 100_000, 1_000_000]:
        with tempfile.TemporaryDirectory() as folder:
            files = [write(Path(folder) / f"{name}.jsonl", rows, seed) for seed, name in enumerate(("old", "new"))]
            parsing = parse(files)
            seconds, most = compare(files, folder), peak(files, folder)
            size = sum(file.stat().st_size for file in files) / 2
        record(rows, size, parsing, seconds, most)


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
    for _ in range(RUNS):
        started = time.perf_counter()
        for path in files:
            with path.open("rb") as file:
                for line in file:
                    orjson.loads(line)
        best = min(best, time.perf_counter() - started)
    return best


def compare(files: list[Path], folder: str) -> float:
    """Seconds from start to exit."""
    best = float("inf")
    for _ in range(RUNS):
        started = time.perf_counter()
        process = start(files, folder)
        ended(process.wait())
        best = min(best, time.perf_counter() - started)
    return best


def peak(files: list[Path], folder: str) -> int:
    """The most memory of all its processes together, in bytes; a page that several share counts once."""
    process, most = start(files, folder), 0
    while process.poll() is None:
        most = max(most, memory(process.pid))
        time.sleep(0.1)
    ended(process.returncode)
    return most


def start(files: list[Path], folder: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flipguard", "compare", *map(str, files), "--out", f"{folder}/report"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def ended(code: int) -> None:
    if code:
        raise SystemExit(f"flipguard compare ended with {code}")


def memory(pid: int) -> int:
    """Bytes of memory of a process and its children, on Linux."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    own = next((int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return own + sum(memory(int(child)) for child in children)


def record(rows: int, size: float, parsing: float, seconds: float, most: int) -> None:
    row = {
        **made(),
        "python": platform.python_version(),
        "rows": rows,
        "megabytes_a_side": round(size / 1e6),
        "seconds": round(seconds, 2),
        "orjson_seconds": round(parsing, 2),
        "ratio": round(seconds / parsing, 1),
        "peak_megabytes": round(most / 1e6),
    }
    append(RESULTS, row)


if __name__ == "__main__":
    main()
