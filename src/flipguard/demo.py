"""The whole way, once: the ordinary commands on the built-in sandbox, then a table and a report.

Each step skips or resumes what is there already, so a demo that was broken off goes on where it was.
"""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.comparison import Result
from flipguard.evaluate.generate import GenerateOptions, generate
from flipguard.evaluate.judge import JudgeOptions, judge
from flipguard.evaluate.report import table
from flipguard.evaluate.results import write_results
from flipguard.evaluate.rivals import Rivalry, rivalry
from flipguard.files import write_text
from flipguard.sandbox.pairs import make_pairs
from flipguard.sandbox.write import write_sandbox

JUDGE = "flipguard.sandbox.reward:true_reward"
METHODS = {
    "dpo": (("DPO", "dpo"), ("DPO+KD", "dpo_kd"), ("DPO+FlipGuard", "dpo_flipguard")),
    "ppo": (("PPO", "ppo"), ("PPO+KD", "ppo_kd"), ("PPO+FlipGuard", "ppo_flipguard")),
}
ANSWER_TOKENS = 24
BATCH = 256
NOTES = (
    "NFR: the share of prompts whose answer got worse than before alignment; win rate: the share that got better.",
    "Judged by the sandbox's true reward with a margin of 0.1; in brackets: Wilson 95 %.",
    "The models were compared on greedy answers to prompts that none of them was trained on.",
)
ONLINE_NOTE = "PPO learns from the true reward itself; recipes/reward.yaml trains a model of it, which takes longer."


@dataclass(frozen=True)
class Demo:
    """What a demo run leaves behind."""

    folder: Path
    results: dict[str, Result]
    tests: dict[str, Rivalry]

    @property
    def report(self) -> Path:
        """The overview page."""
        return self.folder / "report" / "index.html"


def run_demo(folder: Path, *, seed: int, algorithms: Sequence[str] = ("dpo",)) -> Demo:
    """Sandbox, SFT, preference pairs for DPO, one alignment per method, each compared with the SFT model.

    Args:
        folder: where everything goes; what is there already from the same seed is kept.
        seed: of the world and of training.
        algorithms: which families of METHODS to run.
    """
    os.environ.setdefault("FLIPGUARD_CACHE", str(folder / "cache"))
    methods = [method for name in algorithms for method in METHODS[name]]
    steps = _Steps(4 + 2 * ("dpo" in algorithms) + 2 * len(methods))
    with steps.step("write the sandbox"):
        write_sandbox(folder, seed=seed)
    with steps.step("SFT: learn to answer everything"):
        _train(folder, "sft")
    if "dpo" in algorithms:
        with steps.step("sample two answers per prompt"):
            samples = _answers(folder, "sft", "preference", samples=2, seed=seed)
        with steps.step("order them by a noisy judge"):
            make_pairs(samples, folder / "data" / "pairs.jsonl", seed=seed)
    with steps.step("answer the test prompts before alignment"):
        old = _answers(folder, "sft", "test")
    results = {}
    for name, recipe in methods:
        with steps.step(f"{name}: align"):
            _train(folder, recipe)
        with steps.step(f"{name}: answer, judge, compare"):
            results[name] = _compare(folder, recipe, old)
    with steps.step("write the report"):
        demo = Demo(folder, results, _tests(results))
        _write_overview(demo)
    return demo


def summary(demo: Demo) -> str:
    """The table and where to look next, for a terminal."""
    rows = [(name, result.comparison) for name, result in demo.results.items()]
    tests = [textwrap.fill(_sentence(name, test), 80) for name, test in demo.tests.items()]
    return "\n".join([table.render_table(rows), *tests, f"\nReport: {demo.report}"])


def to_json(demo: Demo) -> dict[str, Any]:
    """The same for machines."""
    return {
        "report": str(demo.report),
        "methods": {name: result.comparison.to_json() for name, result in demo.results.items()},
        "tests": {name: asdict(test) for name, test in demo.tests.items()},
    }


class _Steps:
    """Says which step of how many is under way, and how long each took."""

    def __init__(self, total: int) -> None:
        self.total, self.number = total, 0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self.number += 1
        sys.stderr.write(f"[{self.number}/{self.total}] {name}\n")
        started = time.monotonic()
        yield
        sys.stderr.write(f"[{self.number}/{self.total}] done in {time.monotonic() - started:.0f} s\n")


def _train(folder: Path, recipe: str) -> None:
    from flipguard.train.run import train

    truth = {"reward": JUDGE} if recipe in dict(METHODS["ppo"]).values() else {}
    train(folder / "recipes" / f"{recipe}.yaml", truth, resume=True)


def _answers(folder: Path, model: str, prompts: str, *, samples: int = 1, seed: int = 0) -> Path:
    """Greedy answers to a set of prompts, or `samples` sampled ones."""
    out = folder / "answers" / f"{model}_{prompts}.jsonl"
    generate(
        GenerateOptions(
            model=str(folder / "runs" / model),
            prompts=folder / "data" / f"{prompts}_prompts.jsonl",
            out=out,
            max_new_tokens=ANSWER_TOKENS,
            temperature=0.0 if samples == 1 else 1.0,
            samples=samples,
            batch_size=BATCH,
            seed=seed,
        )
    )
    return out


def _compare(folder: Path, recipe: str, old: Path) -> Result:
    new = _answers(folder, recipe, "test")
    judgments = folder / "judgments" / f"{recipe}.jsonl"
    judge(JudgeOptions(judge=JUDGE, old=old, new=new, out=judgments, batch_size=BATCH))
    report = folder / "report" / recipe
    command = ["flipguard", "compare", str(judgments), "--out", str(report)]
    result = compare_files(judgments, None, Options(), command=command)
    write_results(report, result)
    return result


def _tests(results: dict[str, Result]) -> dict[str, Rivalry]:
    """FlipGuard against each other method, on the same prompts."""
    pairs = {name: result.pairs for name, result in results.items()}
    guarded = [name for name in pairs if name.endswith("+FlipGuard")]
    return {
        f"{guard} against {other}": rivalry(pairs[other], pairs[guard])
        for guard in guarded
        for other in pairs
        if other != guard and other.startswith(guard.removesuffix("+FlipGuard"))
    }


def _sentence(name: str, test: Rivalry) -> str:
    return (
        f"{name}: {test.only_first:,} of {test.n:,} prompts got worse without the guard only, "
        f"{test.only_second:,} with it only (McNemar p = {test.p_value:.2g})"
    )


def _write_overview(demo: Demo) -> None:
    rows = [(name, result.comparison) for name, result in demo.results.items()]
    links = {name: f"{recipe}/report.html" for family in METHODS.values() for name, recipe in family}
    tests = [
        {
            "comparison": name,
            "prompts": test.n,
            "worse only without the guard": test.only_first,
            "worse only with it": test.only_second,
            "p (McNemar)": test.p_value,
        }
        for name, test in demo.tests.items()
    ]
    notes = (*NOTES, ONLINE_NOTE) if any(name in dict(METHODS["ppo"]) for name in demo.results) else NOTES
    page = table.index_html(rows, notes=notes, links={name: links[name] for name, _ in rows}, tests=tests)
    write_text(demo.report, page)
