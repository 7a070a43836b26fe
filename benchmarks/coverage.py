"""Do our intervals hold what they promise? Appends the share of cases in which each held to coverage.csv.

Where all outcomes can be counted the share is exact (runs: all), else it is simulated. `nominal` is what is promised:
for intervals and bounds a coverage, to be reached or exceeded; for `error` rows the largest error that is allowed.
Rows named "not ours" show what the usual shortcuts would do on the same data. About two minutes.
"""

import csv
import math
import platform
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from flipguard.evaluate import stats
from flipguard.evaluate.bootstrap import clustered
from flipguard.evaluate.change import change
from flipguard.evaluate.comparison import Answer, Outcome, Pair
from flipguard.evaluate.floor import floor, tango
from flipguard.evaluate.outcomes import scored

HERE = Path(__file__).parent
FIELDS = ["date", "commit", "python", "statistic", "n", "p", "nominal", "measured", "runs"]
SIMULATED, CLUSTERED = 1000, 250
Row = tuple[str, int, float, float, float, str]


def main() -> None:
    today, commit = datetime.now(UTC).date().isoformat(), _commit()
    path = HERE / "coverage.csv"
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(FIELDS)
        for rows in (proportions, gate, paired_shares, mean_change, clusters, clustered_excess):
            for statistic, n, p, nominal, measured, runs in rows():
                shown = [statistic, n, f"{p:.4g}", f"{nominal:.4g}", f"{measured:.4f}", runs]
                writer.writerow([today, commit, platform.python_version(), *shown])
                print(*shown, sep="\t", flush=True)


def proportions() -> Iterator[Row]:
    """Wilson, which is near its level on average, and Clopper-Pearson, which never is below."""
    for n in (50, 200, 1000):
        for p in (0.02, 0.05, 0.2):
            chances, shares = _binomial(n, p), [stats.proportion(k, n) for k in range(n + 1)]
            within = [share.low <= p <= share.high for share in shares]
            below = [p <= share.upper for share in shares]
            yield "Wilson interval", n, p, 0.95, math.fsum(chances[within]), "all"
            yield "Clopper-Pearson upper bound", n, p, 0.95, math.fsum(chances[below]), "all"


def gate() -> Iterator[Row]:
    """How often an update passes whose rate is exactly the limit."""
    for n in (50, 100, 500, 1000):
        for limit in (0.02, 0.05, 0.1):
            chances = _binomial(n, limit)
            largest = stats.largest_passing_k(n, limit)
            wald = [k / n + 1.6449 * math.sqrt(k / n * (1 - k / n) / n) <= limit for k in range(n + 1)]
            passed = 0.0 if largest is None else math.fsum(chances[: largest + 1])
            yield "error: passes at the limit", n, limit, 0.05, passed, "all"
            yield "error: passes at the limit, Wald (not ours)", n, limit, 0.05, math.fsum(chances[wald]), "all"


def paired_shares() -> Iterator[Row]:
    """Tango's interval for the excess over the floor; p is the share that the update adds."""
    for n in (50, 100):
        for first, second in ((0.05, 0.05), (0.2, 0.05), (0.3, 0.25)):
            held = total = 0.0
            for one in range(n + 1):
                for other in range(n - one + 1):
                    chance = _trinomial((one, other, n - one - other), (first, second, 1 - first - second))
                    if chance > 1e-9:
                        low, high = tango(one, other, n)
                        held += chance * (low <= first - second <= high)
                        total += chance
            yield "excess over the floor, Tango", n, first - second, 0.95, held / total, "all"


def mean_change() -> Iterator[Row]:
    """Student's interval and the permutation test; p is the true mean change, always 0.

    The test is exact where changes are symmetric around 0; with few and skewed ones it rejects too often.
    """
    rng = np.random.default_rng(1)
    draws = {"normal": lambda n: rng.normal(0, 1, n), "skewed": lambda n: rng.exponential(1, n) - 1}
    for name, draw in draws.items():
        for n in (20, 100):
            told = [change(_scores(draw(n)), seed=run) for run in range(SIMULATED)]
            held = np.mean([one.low <= 0 <= one.high for one in told])
            wrong = np.mean([one.p_value <= 0.05 for one in told])
            yield f"mean change, {name}", n, 0, 0.95, held, str(SIMULATED)
            yield f"error: permutation test, {name}", n, 0, 0.05, wrong, str(SIMULATED)


def clusters() -> Iterator[Row]:
    """Clusters of flips that resemble each other by `alike` (intraclass correlation)."""
    rng = np.random.default_rng(2)
    for many, size, p, alike in ((20, 5, 0.1, 0.5), (50, 5, 0.05, 0.9), (50, 10, 0.03, 0.2), (100, 2, 0.2, 0.5)):
        where = f"{many} clusters of {size}, alike {alike}"
        drawn = [_flips(rng, many, size, p, alike) for _ in range(CLUSTERED)]
        told = [clustered(_repeats(flips, size), seed=run).nfr for run, flips in enumerate(drawn)]
        sums = [int(flips.sum()) for flips in drawn]
        plain = [_percentile(rng, flips / size) for flips in drawn]
        n, runs = many * size, str(CLUSTERED)
        yield f"clustered interval, {where}", n, p, 0.95, np.mean([one.low <= p <= one.high for one in told]), runs
        yield f"clustered upper bound, {where}", n, p, 0.95, np.mean([p <= one.upper for one in told]), runs
        yield f"clustered lower bound, {where}", n, p, 0.95, np.mean([p >= one.lower for one in told]), runs
        bounds = [stats.upper_bound(k, n) for k in sums]
        yield f"Clopper-Pearson upper bound (not ours), {where}", n, p, 0.95, np.mean(np.array(bounds) >= p), runs
        yield f"percentile upper bound (not ours), {where}", n, p, 0.95, np.mean(np.array(plain) >= p), runs


def clustered_excess() -> Iterator[Row]:
    """The excess over the floor where five samples of a prompt are alike; p is the share that the update adds."""
    rng = np.random.default_rng(3)
    for many, worse, floored in ((40, 0.25, 0.1), (100, 0.1, 0.1)):
        held = 0
        for run in range(CLUSTERED):
            update, again = (_repeats(_flips(rng, many, 5, p, 0.5), 5) for p in (worse, floored))
            excess = floor(update, again, seed=run)["excess"]
            held += excess["low"] <= worse - floored <= excess["high"]
        where = f"{many} clusters of 5, alike 0.5"
        yield f"excess, {where}", many * 5, worse - floored, 0.95, held / CLUSTERED, str(CLUSTERED)


def _binomial(n: int, p: float) -> np.ndarray:
    return np.array([math.exp(_log_choose(n, k) + k * math.log(p) + (n - k) * math.log1p(-p)) for k in range(n + 1)])


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _trinomial(counts: tuple[int, ...], shares: tuple[float, ...]) -> float:
    logs = (k * math.log(p) - math.lgamma(k + 1) for k, p in zip(counts, shares, strict=True))
    return math.exp(math.lgamma(sum(counts) + 1) + math.fsum(logs))


def _scores(changes: np.ndarray) -> list[Pair]:
    sides = [(Answer(0.0), Answer(float(moved))) for moved in changes]
    return [Pair(number, 0, old, new, scored(old, new)) for number, (old, new) in enumerate(sides)]


def _flips(rng: np.random.Generator, many: int, size: int, p: float, alike: float) -> np.ndarray:
    """How many of `size` pairs flipped in each cluster: beta-binomial."""
    scale = 1 / alike - 1
    return rng.binomial(size, rng.beta(p * scale, (1 - p) * scale, many))


def _repeats(flips: np.ndarray, size: int) -> list[Pair]:
    kinds: tuple[Outcome, Outcome] = ("tie", "negative_flip")
    sides = Answer(), Answer()
    return [Pair(i, repeat, *sides, kinds[int(repeat < k)]) for i, k in enumerate(flips) for repeat in range(size)]


def _percentile(rng: np.random.Generator, shares: np.ndarray) -> float:
    drawn = rng.integers(0, len(shares), (1999, len(shares)))
    return float(np.sort(shares[drawn].mean(axis=1))[1899])


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE).stdout.strip()


if __name__ == "__main__":
    main()
