"""Do our intervals hold what they promise? Appends the share of cases in which each held to coverage.csv.

Where all outcomes can be counted the share is exact (runs: all), else it is simulated. `nominal` is what is promised:
for intervals and bounds a coverage, to be reached or exceeded; for `error` rows the largest error that is allowed.
Rows named "not ours" show what the usual shortcuts would do on the same data. All of them take about five minutes;
`python benchmarks/coverage.py cluster_tests severity` appends these only.
"""

import csv
import math
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from flipguard.evaluate import stats
from flipguard.evaluate.bootstrap import clustered, clusters_to_decide
from flipguard.evaluate.change import change
from flipguard.evaluate.comparison import Answer, Outcome, Pair
from flipguard.evaluate.depth import Measure, depth
from flipguard.evaluate.difference import tango
from flipguard.evaluate.floor import floor
from flipguard.evaluate.outcomes import scored
from flipguard.evaluate.sampling import Sampling

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
        for rows in [part for part in PARTS if part.__name__ in sys.argv[1:] or len(sys.argv) == 1]:
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


def excess_gate() -> Iterator[Row]:
    """How often the excess passes at its limit by the one-sided end of Tango's interval, or fails there."""
    for n in (100, 200):
        for first, second in ((0.1, 0.05), (0.3, 0.25)):
            passed = failed = 0.0
            for one in range(n + 1):
                for other in range(n - one + 1):
                    chance = _trinomial((one, other, n - one - other), (first, second, 1 - first - second))
                    if chance > 1e-9:
                        lower, upper = tango(one, other, n, 0.1)
                        passed += chance * (upper <= first - second)
                        failed += chance * (lower > first - second)
            where = f"floor {second:g}"
            yield f"error: excess passes at its limit, {where}", n, first - second, 0.05, passed, "all"
            yield f"error: excess fails at its limit, {where}", n, first - second, 0.05, failed, "all"


def cluster_tests() -> Iterator[Row]:
    """As many better as worse, clusters alike by 0.5: how often a test at 5 % rejects; and a category's interval."""
    rng = np.random.default_rng(4)
    how = Sampling(clusters=True)
    for many, size, p in ((30, 5, 0.2), (100, 3, 0.1)):
        ours, exact, held, where = 0, 0, 0, f"{many} clusters of {size}, alike 0.5"
        for run in range(CLUSTERED):
            moved, way = _flips(rng, many, size, p, 0.5), rng.choice([-1, 1], many)
            pairs = _repeats(moved, size)
            flips = [pair for pair in pairs if pair.outcome == "negative_flip"]
            better = [pair for pair in flips if way[pair.id] > 0]
            worse = [pair for pair in flips if way[pair.id] < 0]
            ours += how.test(better, worse, "net")[0] <= 0.05
            exact += stats.mcnemar(len(worse), len(better)) <= 0.05
            share = Sampling(seed=run, clusters=True).share(flips, pairs, "share")
            held += share.low <= p <= share.high
        n, runs = many * size, str(CLUSTERED)
        yield f"error: signs of clusters, {where}", n, 0, 0.05, ours / CLUSTERED, runs
        yield f"error: exact McNemar (not ours), {where}", n, 0, 0.05, exact / CLUSTERED, runs
        yield f"share over clusters, {where}", n, p, 0.95, held / CLUSTERED, runs


def severity() -> Iterator[Row]:
    """Bounds of the mean drop and of the flips' mean and 90 % quantile; p is the true value. Drops are exponential."""
    rng = np.random.default_rng(5)
    for n, flips in ((200, 0.05), (500, 0.2)):
        truth: dict[Measure, float] = {"mean": 0.2 * flips, "mean_flip": 0.2, "p90": -0.2 * math.log(0.1)}
        told = []
        for run in range(CLUSTERED):
            drops = np.where(rng.random(n) < flips, rng.exponential(0.2, n), 0.0)
            told.append(depth(_scores(-drops), 0.0, seed=run).bounds)
        for name, value in truth.items():
            seen = [bounds[name] for bounds in told if name in bounds]
            above, below = [one.upper >= value for one in seen], [one.lower <= value for one in seen]
            where = f"{flips:.0%} of pairs fall"
            yield f"severity {name} upper bound, {where}", n, value, 0.95, np.mean(above), str(len(seen))
            yield f"severity {name} lower bound, {where}", n, value, 0.95, np.mean(below), str(len(seen))


def clusters_asked_for() -> Iterator[Row]:
    """How often as many clusters as an inconclusive verdict asks for do decide; p is the rate, the limit twice that."""
    rng = np.random.default_rng(6)
    for many, size, p, alike in ((60, 5, 0.05, 0.3), (50, 10, 0.02, 0.2), (100, 2, 0.05, 0.5)):
        pilot = _flips(rng, many, size, p, alike)
        while pilot.sum() != round(p * many * size):
            pilot = _flips(rng, many, size, p, alike)
        share = stats.proportion(int(pilot.sum()), many * size)
        needed = clusters_to_decide(share, clustered(_repeats(pilot, size)), 2 * p)
        decided = [
            clustered(_repeats(_flips(rng, needed, size, p, alike), size), seed=run, draws=499).nfr.upper <= 2 * p
            for run in range(100)
        ]
        yield (
            f"decides with the {needed} clusters asked for, alike {alike}",
            many * size,
            p,
            0.8,
            np.mean(decided),
            "100",
        )


PARTS = (
    proportions, gate, paired_shares, mean_change, clusters, clustered_excess,
    excess_gate, cluster_tests, severity, clusters_asked_for,
)  # fmt: skip


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
