"""What does the guard add to a step? Forward and backward of one batch, guarded and not, in turns.

Usage: python benchmarks/guard_cost.py [pairs in a batch] [turns] [threads]

Model and pairs are those of dpo_step.py (8 x 256, summaries), and every pair is made to flip. Both ways run in one
process on the same batch, one after the other, the first of a turn changing from turn to turn; the median of the turns'
ratios counts, with its quartiles. A row goes to guard_cost.csv.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from recording import append, made

HERE = Path(__file__).parent


def main(pairs: int = 4, turns: int = 30, threads: int = 2) -> None:
    import dpo_step
    import torch
    from transformers import TrainerCallback

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as name:
        os.environ["FLIPGUARD_CACHE"] = f"{name}/cache"
        dpo_step.prepare(Path(name), pairs)
        work = {"folder": name, "model": "8x256", "data": "summaries", "pairs": pairs, "steps": 1}
        guarded, plain = (
            dpo_step.flipguard({**work, "contender": contender}, TrainerCallback())
            for contender in ("flipguard guarded", "flipguard")
        )
        batch = next(iter(guarded.get_train_dataloader()))
        raise_all_flips(batch)
        losses = guarded.guarded_loss, plain.guarded_loss
        ratios = [turn(guarded, batch, losses, first=number % 2) for number in range(turns + 2)][2:]
    record(pairs, threads, turns, statistics.quantiles(ratios, n=4))


def raise_all_flips(batch: dict[str, Any]) -> None:
    """Let the reference find every answer ten nats likelier than the policy does: the guard works on every pair."""
    batch["ref_logps"] += 10


def turn(trainer: Any, batch: dict[str, Any], losses: tuple[Any, Any], *, first: int) -> float:
    spent = [0.0, 0.0]
    for which in (first, 1 - first):
        trainer.guarded_loss = losses[which]
        started = time.perf_counter()
        trainer.compute_loss(trainer.model, dict(batch)).backward()
        spent[which] = time.perf_counter() - started
        trainer.model.zero_grad()
    return spent[0] / spent[1]


def record(pairs: int, threads: int, turns: int, quartiles: list[float]) -> None:
    row = {
        **made(),
        "threads": threads,
        "pairs": pairs,
        "turns": turns,
        "ratio": f"{quartiles[1]:.4f}",
        "lower_quartile": f"{quartiles[0]:.4f}",
        "upper_quartile": f"{quartiles[2]:.4f}",
    }
    append(HERE / "guard_cost.csv", row)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
