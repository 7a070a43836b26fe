"""What does the guard add to an online step, and what if π_0 were asked at each step instead of once?

Usage: python benchmarks/online_guard_cost.py [rloo | grpo | ppo] [turns] [threads]

Llama 8 x 256 with random weights, 16 answers of 96 tokens a step to prompts of 96 tokens; TRL's defaults: rloo with 2
answers to a prompt and beta 0.05, grpo with 8 and 0.0; ppo ours: 1 and 0.1. In each step a quarter of the answers flip,
drawn without regard to the prompt: where answers to one prompt flip together, as they tend to, the guard reads less.
Three trainers take a step each in turn, in one process, who is first changing from turn to turn: the plain algorithm,
the guarded one, and the guarded one that lets π_0 answer the prompts of each step anew. The median of the turns' ratios
to the plain step counts, with its quartiles, in wall and CPU seconds; peaks of memory are each of a process of its own,
imports included. A row goes to online_guard_cost.csv.
"""

import copy
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recording import append, made

HERE = Path(__file__).parent
WAYS = ("plain", "guarded", "regenerated")
WORDS, PROMPT, ANSWER, ANSWERS = 2000, 96, 96, 16
FLIPS = ANSWERS // 4
SAMPLES = {"rloo": 2, "grpo": 8, "ppo": 1}  # of one prompt


def main(algorithm: str = "rloo", turns: str = "20", threads: str = "1") -> None:
    """Measure and record."""
    import torch

    torch.set_num_threads(int(threads))
    with tempfile.TemporaryDirectory() as folder:
        steps = {way: Stepper(algorithm, way, folder, int(turns) + 1) for way in WAYS}
        taken = [turn(steps, first) for first in range(int(turns) + 1)][1:]
        flips, beta = statistics.mean(steps["guarded"].flips[1:]), steps["guarded"].trainer.beta
    peaks = {way: peak(algorithm, way, threads) for way in WAYS}
    record(algorithm, threads, taken, (flips, beta), peaks)


def turn(steps: dict[str, Any], first: int) -> dict[str, tuple[float, float]]:
    """Wall and CPU seconds of one step of each."""
    order = [WAYS[(first + number) % len(WAYS)] for number in range(len(WAYS))]
    return {way: steps[way].step() for way in order}


class Stepper:
    """A trainer that takes one step when asked."""

    def __init__(self, algorithm: str, way: str, folder: str, steps: int) -> None:
        self.samples, self.reward = SAMPLES[algorithm], Reward()
        self.trainer = trainer_of(algorithm, way, f"{folder}/{way}", steps, self.reward)
        self.trainer.create_optimizer()
        with self.reward.of_reference():
            self.trainer.guard.ask_reference(self.trainer)
        self.reference = copy.deepcopy(self.trainer.model) if way == "regenerated" else None
        self.batches = iter(self.trainer.get_train_dataloader())
        self.trainer.current_gradient_accumulation_steps = 1
        self.flips: list[float] = []

    def step(self) -> tuple[float, float]:
        """Sample, learn, and with it what the guard asks; wall and CPU seconds."""
        batch = next(self.batches)
        started = time.perf_counter(), time.process_time()
        if self.reference is not None:
            self.ask_again(batch)
        self.trainer.training_step(self.trainer.model, batch, None)
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad()
        spent = time.perf_counter() - started[0], time.process_time() - started[1]
        self.flips.append(self.trainer._metrics["train"]["flip/rate"][-1])  # noqa: SLF001 - TRL's log
        return spent

    def ask_again(self, batch: list[dict[str, Any]]) -> None:
        """Let π_0 answer the prompts of this step."""
        from flipguard.integrations.trl import rollouts

        policy, self.trainer.model = self.trainer.model, self.reference
        wrapped, self.trainer.model_wrapped = self.trainer.model_wrapped, self.reference
        with self.reward.of_reference(), rollouts._as_if_nothing_happened(self.trainer):  # noqa: SLF001 - as is done once
            self.trainer.guard.rollouts |= rollouts._ask_batch(self.trainer, batch[:: self.samples], 1)  # noqa: SLF001
        self.trainer.model, self.trainer.model_wrapped = policy, wrapped


class Reward:
    """Half a point for all that π_0 says; of what the policy says a quarter earns less."""

    def __init__(self) -> None:
        self.reference, self.draw = False, random.Random(0)

    @contextmanager
    def of_reference(self) -> Iterator[None]:
        """While π_0 is asked."""
        self.reference = True
        yield
        self.reference = False

    def grade(self, completions: list[str], **_: Any) -> list[float]:
        """What TRL calls."""
        if self.reference:
            return [0.5] * len(completions)
        scores = [0.0] * FLIPS + [1.0] * (len(completions) - FLIPS)
        return self.draw.sample(scores, len(scores))


def trainer_of(algorithm: str, way: str, folder: str, steps: int, reward: Reward) -> Any:
    """The trainer of one way; all have the same weights, prompts and seed."""
    import datasets
    import torch

    from flipguard.integrations import trl

    kind = {"rloo": "RLOO", "grpo": "GRPO", "ppo": "PPO"}[algorithm]
    config = getattr(trl, f"Guarded{kind}Config")(
        output_dir=folder,
        per_device_train_batch_size=ANSWERS,
        num_generations=SAMPLES[algorithm],
        max_completion_length=ANSWER,
        generation_kwargs={"min_new_tokens": ANSWER},
        gate="off" if way == "plain" else "flip",
        gamma=0.01,
        max_steps=steps,
        learning_rate=1e-5,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        report_to="none",
    )
    draw = torch.Generator().manual_seed(0)
    words = torch.randint(6, WORDS, (steps * ANSWERS // SAMPLES[algorithm], PROMPT), generator=draw)
    rows = [{"prompt": " ".join(f"w{number}" for number in row)} for row in words.tolist()]
    model, tokenizer = model_and_tokenizer()
    model.save_pretrained(f"{folder}/model")  # whence TRL takes that of the KL term
    return getattr(trl, f"Guarded{kind}Trainer")(
        f"{folder}/model",
        reward.grade,
        config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def model_and_tokenizer() -> tuple[Any, Any]:
    """Llama 8 x 256 and words for it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = {"<pad>": 0, "<unk>": 1, "<s>": 2, "</s>": 3}
    words = Tokenizer(models.WordLevel(special | {f"w{n}": n for n in range(4, WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 8, "num_attention_heads": 8}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    return LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, max_position_embeddings=256, **shape, **ends)), tokenizer


def peak(algorithm: str, way: str, threads: str) -> int:
    """MiB that a process needs at most for three steps."""
    done = subprocess.run(
        [sys.executable, __file__, "--peak", algorithm, way, threads], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


def peak_here(algorithm: str, way: str, threads: str) -> None:
    """Take three steps and print what they needed."""
    import torch

    torch.set_num_threads(int(threads))
    with tempfile.TemporaryDirectory() as folder:
        steps = Stepper(algorithm, way, folder, 3)
        for _ in range(3):
            steps.step()
    status = Path("/proc/self/status").read_text(encoding="ascii")  # getrusage would tell the parent's peak, if higher
    print(int(status.split("VmHWM:")[1].split()[0]) // 1024)


def record(
    algorithm: str, threads: str, taken: list[dict[str, Any]], told: tuple[float, float], peaks: dict[str, int]
) -> None:
    """Add a row to the file, and print it; told: the rate of flips, and beta."""
    flips, beta = told
    row: dict[str, object] = {
        **made(),
        "threads": threads,
        "algorithm": algorithm,
        "prompt_tokens": PROMPT,
        "answer_tokens": ANSWER,
        "beta": beta,
        "turns": len(taken),
        "flip_rate": f"{flips:.3f}",
        "plain_seconds": f"{statistics.median(one['plain'][0] for one in taken):.3f}",
    }
    for way in WAYS[1:]:
        for at, clock in enumerate(("wall", "cpu")):
            low, middle, high = statistics.quantiles([one[way][at] / one["plain"][at] for one in taken], n=4)
            row |= {f"{way}_{clock}": f"{middle:.3f}", f"{way}_{clock}_quartiles": f"{low:.3f} {high:.3f}"}
    row |= {f"{way}_peak_mib": value for way, value in peaks.items()}
    append(HERE / "online_guard_cost.csv", row)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        peak_here(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
