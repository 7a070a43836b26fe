"""Ask a model every prompt: prompts.jsonl -> generations.jsonl. A killed run goes on where it stopped.

Batches are fixed before the first answer: (prompt, repeat) sorted from the longest prompt to the shortest and cut into
pieces of `batch_size`, so that little is computed on padding and a model that does not fit in memory fails at once.
The finished file is in the order of the prompts. Each batch is seeded by (seed, number of the batch): the same command
gives the same samples, broken off or not. Another batch size gives other samples, and other rounding when greedy.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from flipguard.errors import FlipGuardError, choose, shown
from flipguard.evaluate.engine import Answerer, Engine, Question, Settings, find_engine
from flipguard.evaluate.prompts import Located, read_prompts, rows_sha256
from flipguard.evaluate.resumable import Unit, Worker, write_units
from flipguard.files import read_jsonl
from flipguard.records import Row

DTYPES = ("auto", "float32", "bfloat16", "float16")
TEMPLATES = ("auto", "off")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """What `flipguard generate` is asked to do.

    Attributes:
        model: folder or hub id, also of a PEFT adapter.
        prompts: JSONL of prompt rows.
        out: JSONL of generation rows: the prompt rows and completion, model, finish_reason, repeat.
        engine: a name of `engines.ENGINES`, or package.module:function.
        max_new_tokens: answers are cut there, with finish_reason "length".
        temperature: 0 is greedy.
        top_p: sample from the smallest set of tokens with this much probability; 1 is all of them.
        top_k: sample from this many tokens; 0 is all of them.
        samples: answers per prompt, told apart by `repeat`.
        batch_size: (prompt, repeat) pairs answered together.
        seed: of the samples.
        dtype: auto (as the model was saved), float32, bfloat16 or float16.
        device: auto (the GPU if there is one), cpu, cuda, cuda:1, mps.
        template: auto: a prompt that is one text becomes a user message where the tokenizer has a chat template, and
            goes in as it is where not; off: always as it is. Lists of messages always need the template.
        overwrite: begin again, whatever is there.
    """

    model: str
    prompts: Path
    out: Path
    engine: str = "transformers"
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    samples: int = 1
    batch_size: int = 32
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"
    template: Literal["auto", "off"] = "auto"
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class GenerateSummary:
    """What `out` holds now; `resumed` rows of it were there before, `already` says that all were."""

    out: Path
    rows: int
    prompts: int
    resumed: int
    already: bool
    stopped: int
    cut_off: int
    failed: int


def generate(options: GenerateOptions) -> GenerateSummary:
    """Answer every prompt `samples` times and write the answers to `out`.

    Raises:
        FlipGuardError: an option, the prompts, the model or the output file cannot be used.
    """
    _check(options)
    located = read_prompts(options.prompts)
    units = plan([_length(item.row) for item in located], samples=options.samples, batch_size=options.batch_size)
    engine = find_engine(options.engine, _settings(options))
    written = write_units(
        options.out,
        units,
        lambda: _worker(options, engine, located, units),
        fingerprint=_fingerprint(options, engine, located),
        overwrite=options.overwrite,
        label="generate",
    )
    reasons = Counter(row["finish_reason"] for _, row in read_jsonl(options.out))
    return GenerateSummary(
        out=options.out,
        rows=written.rows,
        prompts=len(located),
        resumed=written.resumed,
        already=written.already,
        stopped=reasons["stop"],
        cut_off=reasons["length"],
        failed=reasons["error"],
    )


def plan(lengths: list[int], *, samples: int, batch_size: int) -> list[Unit]:
    """Batches of row numbers, longest prompts first; row number = prompt number * samples + repeat.

    >>> plan([3, 9, 5], samples=2, batch_size=4)
    [[2, 3, 4, 5], [0, 1]]
    """
    rows = sorted(range(len(lengths) * samples), key=lambda row: -lengths[row // samples])  # stable: ties keep order
    return [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]


def batch_seed(seed: int, number: int) -> int:
    """The seed of one batch: batches differ, and neighbouring seeds share none."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:6])


def _worker(options: GenerateOptions, engine: Engine, located: list[Located], units: list[Unit]) -> Worker:
    questions = [Question(item.where, item.row["id"], item.row["prompt"]) for item in located]
    answerer: Answerer = engine.load(questions)

    def work(number: int) -> list[Row]:
        unit = units[number]
        asked = [row // options.samples for row in unit]
        answers = answerer([questions[prompt] for prompt in asked], batch_seed(options.seed, number))
        return [
            located[prompt].row
            | {
                "completion": answer.completion,
                "model": options.model,
                "finish_reason": answer.finish_reason,
                "repeat": row % options.samples,
            }
            for row, prompt, answer in zip(unit, asked, answers, strict=True)
        ]

    return work


def _fingerprint(options: GenerateOptions, engine: Engine, located: list[Located]) -> Row:
    chosen = {name: value for name, value in asdict(options).items() if name not in ("prompts", "out", "overwrite")}
    return {"stage": "generate", **chosen, **engine.identity(), "prompts_sha256": rows_sha256(located)}


def _settings(options: GenerateOptions) -> Settings:
    return Settings(
        model=options.model,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        dtype=options.dtype,
        device=options.device,
        template=options.template,
    )


def _length(row: Row) -> int:
    prompt = row["prompt"]
    return len(prompt) if isinstance(prompt, str) else sum(len(message["content"]) for message in prompt)


def _check(options: GenerateOptions) -> None:
    _at_least("--max-new-tokens", options.max_new_tokens, 1)
    _at_least("--samples", options.samples, 1)
    _at_least("--batch-size", options.batch_size, 1)
    _at_least("--top-k", options.top_k, 0)
    if not (math.isfinite(options.temperature) and options.temperature >= 0):
        raise FlipGuardError(f"--temperature: {options.temperature} is not a number from 0 up; 0 is greedy.")
    if not 0 < options.top_p <= 1:
        raise FlipGuardError(f"--top-p: {options.top_p} is not above 0 and at most 1; 1 keeps every token.")
    if options.temperature == 0 and (options.top_p < 1 or options.top_k > 0):
        raise FlipGuardError("--top-p and --top-k choose among samples; greedy takes none. Set --temperature above 0.")
    if options.samples > 1 and options.temperature == 0:
        raise FlipGuardError(
            f"--samples {options.samples}: greedy answers are all the same. Set --temperature above 0, such as 1."
        )
    for flag, value, choices in (("--dtype", options.dtype, DTYPES), ("--template", options.template, TEMPLATES)):
        if value not in choices:
            raise FlipGuardError(f"{flag}: {shown(value)} is unknown. {choose(value, choices)}")
    if options.out.resolve() == options.prompts.resolve():
        raise FlipGuardError(f"--out {options.out}: is the prompts file. Name another.")


def _at_least(flag: str, value: int, least: int) -> None:
    if value < least:
        raise FlipGuardError(f"{flag}: {value} is too small; the least is {least}.")
