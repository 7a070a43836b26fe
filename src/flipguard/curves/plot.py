"""From runs to one picture: which metrics are worth a panel, and what the picture could not show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from flipguard.curves.history import Run, read_runs
from flipguard.errors import DataError, choose
from flipguard.files import write_bytes

MOST_RUNS, MOST_PANELS = 8, 6


@dataclass(frozen=True)
class Panel:
    """One metric, what to call it, and whether it is a share."""

    metric: str
    title: str
    share: bool = False


USUAL = (
    Panel("flip/rate", "Flip rate", share=True),
    Panel("kl/ref", "KL to π₀, nats per token"),
    Panel("kl", "KL to π₀, nats"),
    Panel("rewards/margins", "Reward margin"),
    Panel("rewards/chosen", "Reward of chosen answers"),
    Panel("rewards/rejected", "Reward of rejected answers"),
    Panel("reward", "Reward"),
    Panel("loss", "Loss"),
    Panel("mean_token_accuracy", "Token accuracy", share=True),
    Panel("accuracy", "Accuracy", share=True),
    Panel("completions/mean_length", "Tokens of an answer"),
    Panel("completions/clipped_ratio", "Answers cut at their limit", share=True),
)
"""What is drawn unless metrics are named: the first six of these that some run has logged."""
SHARES = {"rewards/accuracies", *(panel.metric for panel in USUAL if panel.share)}


@dataclass(frozen=True)
class Plotted:
    """What was drawn."""

    path: str
    runs: list[str]
    metrics: list[str]
    not_finite: int

    def told(self) -> str:
        """The same for people."""
        gaps = f"; {self.not_finite:,} values are not finite: gaps" if self.not_finite else ""
        return f"{self.path}: {', '.join(self.metrics)} of {', '.join(self.runs)}{gaps}"


def plot_runs(paths: list[Path], out: Path, metrics: list[str] | None = None) -> Plotted:
    """Draw one panel per metric and one line per run.

    Args:
        paths: output folders, checkpoints or trainer_state.json files of runs.
        out: the PNG to write.
        metrics: names as logged, without "eval_"; None draws the usual ones.

    Raises:
        DataError: a path holds no run, a metric is nobody's, or `out` is no .png.
        FlipGuardError: matplotlib is not installed.
    """
    if out.suffix.lower() != ".png":
        raise DataError(f"{out}: the picture is a PNG. Let --out end in .png.")
    if len(paths) > MOST_RUNS:
        raise DataError(f"{len(paths)} runs: more than {MOST_RUNS} lines cannot be told apart. Name fewer.")
    runs = read_runs(paths)
    panels = _panels(runs, metrics)
    from flipguard.curves.draw import draw

    write_bytes(out, draw(runs, panels))
    drawn = [value for run in runs for panel in panels for value in run.metrics.get(panel.metric, {}).values()]
    missing = sum(not math.isfinite(value) for value in drawn)
    return Plotted(str(out), [run.name for run in runs], [panel.metric for panel in panels], missing)


def _panels(runs: list[Run], metrics: list[str] | None) -> list[Panel]:
    logged = {name.removeprefix("eval_") for run in runs for name in run.metrics}
    if metrics is None:
        twice = {"kl"} if "kl/ref" in logged else set()  # online trainers log one number by both names
        usual = [panel for panel in USUAL if panel.metric in logged - twice][:MOST_PANELS]
        if not usual:
            raise DataError(
                f"none of the usual metrics was logged. Name some with --metrics: {', '.join(sorted(logged))}."
            )
        return usual
    for name in metrics:
        if name not in logged:
            raise DataError(f"--metrics: no run has logged {name!r}. {choose(name, sorted(logged))}")
    titles = {panel.metric: panel for panel in USUAL}
    return [titles.get(name, Panel(name, name, share=name in SHARES)) for name in dict.fromkeys(metrics)]
