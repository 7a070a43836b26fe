"""The best checkpoint by what it breaks: the lowest negative flip rate among those that win often enough.

At each evaluation the policy answers a file of prompts, greedily, as `flipguard generate` asks them by default; a
scorer grades the answers against those of π_0; flips are those of `flipguard compare`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, TrainerCallback

from flipguard.errors import DataError, JudgeError, RecipeError, shown
from flipguard.files import read_jsonl
from flipguard.progress import follow
from flipguard.records import Row, moved
from flipguard.scorers import Answered, Grade, Scorer, grade
from flipguard.train import together
from flipguard.train.recipe import SelectSpec
from flipguard.train.reference import autocast

METRIC = "eval_selection"
NOT_ENOUGH = 2.0  # METRIC is this and more below the floor; a rate and the part for wins stay under it
NOTHING_GRADED = 4.0


@dataclass(frozen=True)
class Prompts:
    """This process's share of the prompts, in batches that are the same for any number of processes."""

    rows: list[Row]
    ids: list[list[int]]
    batch_size: int

    def batches(self) -> Iterator[range]:
        """Positions of the prompts answered together."""
        return (
            range(at, min(at + self.batch_size, len(self.rows))) for at in range(0, len(self.rows), self.batch_size)
        )


def load_prompts(spec: SelectSpec, tokenizer: Any, batch_size: int) -> Prompts:
    """Read and encode the prompt rows, longest first.

    Raises:
        DataError: a row is no prompt row, an id comes twice, or there are none.
    """
    seen: set[Any] = set()
    found: list[tuple[list[int], Row]] = []
    for number, row in read_jsonl(spec.prompts):
        if not isinstance(row.get("prompt"), str | list) or not isinstance(row.get("id"), str | int):
            raise DataError(f"{spec.prompts}:{number}: no prompt row: it needs 'id' and 'prompt'.")
        if row["id"] in seen:
            raise DataError(f"{spec.prompts}:{number}: id {shown(row['id'])} comes twice. Give each row its own.")
        seen.add(row["id"])
        found.append((_encode(tokenizer, row["prompt"], spec), row))
    if not found:
        raise DataError(f"{spec.prompts}: holds no prompts.")
    found.sort(key=lambda item: -len(item[0]))
    batches = [found[at : at + batch_size] for at in range(0, len(found), batch_size)]
    mine = [item for batch in batches[together.number() :: together.count()] for item in batch]
    return Prompts([row for _, row in mine], [ids for ids, _ in mine], batch_size)


def _encode(tokenizer: Any, prompt: Any, spec: SelectSpec) -> list[int]:
    if isinstance(prompt, str) and (spec.template == "off" or tokenizer.chat_template is None):
        ids: list[int] = tokenizer(prompt)["input_ids"]
        return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids
    if tokenizer.chat_template is None:
        raise DataError(f"{spec.prompts}: has messages, but the tokenizer has no chat template.")
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    encoded: list[int] = tokenizer(asked, add_special_tokens=False)["input_ids"]
    return encoded


@torch.inference_mode()
def answers(model: Any, tokenizer: Any, prompts: Prompts, *, max_new_tokens: int) -> list[str]:
    """What the model says to each prompt, greedily.

    Args:
        model: a causal LM; its mode (training or not) is as before afterwards.
        tokenizer: of the model, with a padding token.
        prompts: what is asked.
        max_new_tokens: answers are cut there.
    """
    own = model.generation_config.eos_token_id
    stops = {*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id} - {None}
    pad = tokenizer.pad_token_id
    config = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=sorted(stops), pad_token_id=pad, use_cache=True
    )
    texts, training = [], model.training
    model.eval()
    with follow("answers", len(prompts.rows), unit="prompt") as advance:
        for batch in prompts.batches():
            asked = [prompts.ids[at] for at in batch]
            width = max(map(len, asked))
            ids = torch.tensor([[pad] * (width - len(one)) + one for one in asked], device=model.device)
            mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in asked], device=model.device)
            new = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)[:, width:].tolist()
            for tokens in new:
                kept = next((tokens[:at] for at, token in enumerate(tokens) if token in stops), tokens)
                texts.append(tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False))
            advance(len(batch))
    model.train(training)
    return texts


class FlipSelection(TrainerCallback):
    """Measures flips against π_0 at each evaluation, and gives the Trainer the number by which the best is chosen."""

    def __init__(
        self, spec: SelectSpec, prompts: Prompts, scorer: Scorer, tokenizer: Any, *, mixed: torch.dtype | None
    ) -> None:
        """Ask nothing yet; see `ask_reference`.

        Args:
            spec: the recipe's `select`.
            prompts: what is asked.
            scorer: grades an answer.
            tokenizer: of the policy.
            mixed: the dtype of autocast, or None.
        """
        self.spec, self.prompts, self.scorer, self.tokenizer = spec, prompts, scorer, tokenizer
        self.mixed = mixed
        self.old: list[tuple[str, Grade]] = []
        self.log: Callable[[dict[str, float]], None] = lambda told: None  # noqa: ARG005 - see `tell`

    def tell(self, log: Callable[[dict[str, float]], None]) -> None:
        """Let `log` have the metrics of each evaluation."""
        self.log = log

    def ask_reference(self, reference: Any) -> None:
        """Let π_0 answer, on its device, and be graded.

        Raises:
            RecipeError: not one of its answers can be graded.
        """
        self.old = self._graded(reference)
        graded = sum(together.gathered(sum(one.score is not None for _, one in self.old)))
        with together.agreed():
            if not graded:
                raise RecipeError(f"select.scorer: {self.spec.scorer} graded not one answer of the reference.")

    def on_evaluate(
        self,
        args: Any,  # noqa: ARG002 - framework's
        state: Any,  # noqa: ARG002 - framework's
        control: Any,  # noqa: ARG002 - framework's
        model: Any = None,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Answer, grade, count flips over all processes; put the result beside the other metrics."""
        pairs = zip(self.old, self._graded(model), strict=True)
        mine = Counter(_outcome(old, new, self.spec.margin) for old, new in pairs)
        total = sum(together.gathered(mine), Counter())
        told = rates(total, self.spec.min_win_rate)
        self.log(dict(told))
        if metrics is not None:
            metrics |= told

    def _graded(self, model: Any) -> list[tuple[str, Grade]]:
        with autocast(model.device, self.mixed):
            texts = answers(model, self.tokenizer, self.prompts, max_new_tokens=self.spec.max_new_tokens)
        rows = self.prompts.rows
        asked = [Answered(row["id"], row["prompt"], text) for row, text in zip(rows, texts, strict=True)]
        keys = dict.fromkeys(key for row in rows for key in row if key != "prompt")
        columns = {key: [row.get(key) for row in rows] for key in keys}
        return list(zip(texts, grade(self.scorer, asked, columns, place=str(self.spec.prompts)), strict=True))


def _outcome(old: tuple[str, Grade], new: tuple[str, Grade], margin: float) -> str:
    if old[1].score is None or new[1].score is None:
        return "invalid"
    return "tie" if old[0] == new[0] else moved(old[1].score, new[1].score, margin)


def rates(outcomes: Counter[str], floor: float) -> dict[str, float]:
    """The metrics of one evaluation.

    Args:
        outcomes: how many prompts became what.
        floor: the least win rate.

    Returns:
        `eval_nfr` and `eval_win_rate` over the prompts that could be graded, `eval_graded` how many these are, and
        `eval_selection`, the less the better: the flip rate, among equal ones the one that wins more; below the floor
        2 and what is missing.

    >>> rates(Counter(negative_flip=1, positive_flip=2, tie=1), 0.25)
    {'eval_graded': 4, 'eval_nfr': 0.25, 'eval_win_rate': 0.5, 'eval_selection': 0.3125}
    >>> rates(Counter(tie=4), 0.25)
    {'eval_graded': 4, 'eval_nfr': 0.0, 'eval_win_rate': 0.0, 'eval_selection': 2.25}
    """
    graded = sum(count for outcome, count in outcomes.items() if outcome != "invalid")
    if not graded:
        return {"eval_graded": 0, METRIC: NOTHING_GRADED}
    nfr, wins = outcomes["negative_flip"] / graded, outcomes["positive_flip"] / graded
    chosen = nfr + (1 - wins) / (2 * graded) if wins >= floor else NOT_ENOUGH + floor - wins
    return {"eval_graded": graded, "eval_nfr": nfr, "eval_win_rate": wins, METRIC: chosen}


def why(state: Any, floor: float) -> str:
    """Which checkpoint the model is and why, in a sentence or two for the model card.

    Raises:
        JudgeError: at no evaluation a single answer could be graded.
    """
    found: Sequence[Any] = [
        entry for entry in state.log_history if entry["step"] == state.best_global_step and "eval_nfr" in entry
    ]
    if not found:
        raise JudgeError("select.scorer: graded nothing at any evaluation, so no checkpoint is the best.")
    best = found[-1]
    told = (
        f"The checkpoint of step {best['step']}: negative flip rate {best['eval_nfr']:.4g} and win rate "
        f"{best['eval_win_rate']:.4g} against the reference on {best['eval_graded']:,} prompts"
    )
    if best["eval_win_rate"] < floor:
        return f"{told}. No checkpoint won as often as the floor of {floor:.4g}; this one came nearest."
    return f"{told}, the lowest rate of those that win at least {floor:.4g}."
