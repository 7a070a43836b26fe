"""How often does an update pass by mistake, if one looks again and again? Writes sequential.csv.

Pairs come one by one, up to 1,000, each a negative flip with the true rate. Either one looks every 25 pairs at the
fixed bound of the gate, or after every pair at the sequential verdict. Both depend on counts alone, so probabilities
are exact, carried from count to count; one row runs the code itself on drawn pairs and must agree.
"""

import csv
import math
import platform
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from flipguard.evaluate.sequential import SHIFTS, sequential
from flipguard.evaluate.stats import largest_passing_k

HERE = Path(__file__).parent
LIMIT, ALPHA, N, RUNS, STEP = 0.05, 0.05, 1000, 1000, 25
FIELDS = ["date", "commit", "python", "setting", "measured", "runs"]


def main() -> None:
    rows = list(measured())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True)
    fixed = (datetime.now(UTC).date().isoformat(), commit.stdout.strip() or "none", platform.python_version())
    with (HERE / "sequential.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows([*fixed, setting, f"{value:.4g}", runs] for setting, value, runs in rows)
    print(*(f"{setting}: {value:.4g} ({runs})" for setting, value, runs in rows), sep="\n")


def measured() -> Iterator[tuple[str, float, str]]:
    allowed = {n: largest_passing_k(n, LIMIT, ALPHA) for n in range(STEP, N + 1, STEP)}
    at = f"at a true rate of {LIMIT:g}, the limit"
    yield f"passes {at}: fixed bound every {STEP} pairs", exact(LIMIT, fixed(allowed))[0]["pass"], "exact"
    first = {n: most for n, most in allowed.items() if n <= 800}
    yield f"passes {at}: fixed bound every {STEP} pairs, up to 800", exact(LIMIT, fixed(first))[0]["pass"], "exact"
    yield f"passes {at}: fixed bound once, at {N}", exact(LIMIT, fixed({N: allowed[N]}))[0]["pass"], "exact"
    chances, _ = exact(LIMIT, accounts)
    yield f"passes {at}: sequential after every pair", chances["pass"], "exact"
    yield f"fails {at}: sequential after every pair", chances["fail"], "exact"
    rng = random.Random(20261121)
    drawn = [sequential((rng.random() < LIMIT for _ in range(N)), LIMIT, ALPHA).verdict for _ in range(RUNS)]
    yield f"passes {at}: sequential after every pair", drawn.count("pass") / RUNS, str(RUNS)
    for rate, right in ((LIMIT / 2, "pass"), (2 * LIMIT, "fail")):
        chances, median = exact(rate, accounts)
        yield f"{right} at a true rate of {rate:g}: sequential, within {N} pairs", chances[right], "exact"
        yield f"{right} at a true rate of {rate:g}: sequential, median pairs", median, "exact"


def exact(rate: float, verdict: Callable[[int, int], str | None]) -> tuple[Counter[str], int]:
    """The chance of each verdict within N pairs, and the number of pairs by which half are decided."""
    waiting, decided, median = {0: 1.0}, Counter[str](), N
    for n in range(1, N + 1):
        following = Counter[int]()
        for k, chance in waiting.items():
            following[k] += chance * (1 - rate)
            following[k + 1] += chance * rate
        waiting = {}
        for k, chance in following.items():
            if said := verdict(k, n):
                decided[said] += chance
            elif chance > 1e-15:
                waiting[k] = chance
        median = min(median, n) if decided.total() >= 0.5 else median
    return decided, median


def fixed(allowed: dict[int, int | None]) -> Callable[[int, int], str | None]:
    """Pass where the count is within what the bound allows at a look."""

    def verdict(k: int, n: int) -> str | None:
        most = allowed.get(n)
        return "pass" if most is not None and k <= most else None

    return verdict


def accounts(k: int, n: int) -> str | None:
    """The sequential verdict at these counts, straight from the definition."""
    for said, sign in (("pass", -1), ("fail", 1)):
        rates = [1 / (1 + (1 - LIMIT) / LIMIT * math.exp(-sign * shift)) for shift in SHIFTS]
        worth = (k * math.log(q / LIMIT) + (n - k) * math.log((1 - q) / (1 - LIMIT)) for q in rates)
        if sum(map(math.exp, worth)) / len(SHIFTS) >= 1 / ALPHA:
            return said
    return None


if __name__ == "__main__":
    main()
