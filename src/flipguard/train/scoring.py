"""What a model says of given completions: log pi(y_t | x, y_<t), without building logits for the whole vocabulary."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flipguard.objective import logprobs
from flipguard.train.attention import BY_UNITS, implementation_of, units_of
from flipguard.train.batches import Layout, PairCollator
from flipguard.train.data import TokenRow
from flipguard.train.packing import visible

Batch = dict[str, Tensor]
PROBE = [TokenRow("", [0, 1, 2, 3, 4], ([5, 6, 7, 8], [9, 10])), TokenRow("", [11, 12], ([13, 14, 15], [16, 17, 18]))]
PROBE_WINDOW = 3  # so short that the rows above reach beyond it


@dataclass(frozen=True)
class Masks:
    """How an architecture takes the mask of packed rows: one for all layers, or one for each kind of layer."""

    additive: bool
    window: int | None
    by_kind: bool
    by_units: bool = False
    """Whether attention also takes the units of each row, to skip what the mask hides."""

    def of(self, batch: Batch, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """[R, 1, T, T] bool, or numbers to add to the scores; by the kind of layer where a model has several."""
        if self.by_kind:
            return {
                "full_attention": self._made(batch, None, dtype),
                "sliding_attention": self._made(batch, self.window, dtype),
            }
        return self._made(batch, self.window, dtype)

    def _made(self, batch: Batch, window: int | None, dtype: torch.dtype) -> Tensor:
        sees = visible(batch, window)
        if not self.additive:
            return sees
        return torch.zeros_like(sees, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)


@dataclass(frozen=True)
class Scorer:
    """How to read log-probabilities off one architecture: its trunk gives states, `head` turns states into logits.

    Without a `trunk`, the states are the logits themselves and the head is the identity: slower, and always right.
    Without `masks`, only padded rows can be read.
    """

    trunk: torch.nn.Module | None
    head: Callable[[Tensor], Tensor]
    masks: Masks | None = None

    def states(self, model: Any, batch: Batch) -> Tensor:
        """[R, T, H] what `head` reads.

        Args:
            model: the causal LM, or the wrapper around it (DDP, PEFT) whose forward pass must be used.
            batch: input_ids [R, T] and attention_mask [R, T], or what `packing.packed` gives.
        """
        return self._read(model, self._inputs(model, batch))

    def _inputs(self, model: Any, batch: Batch) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_ids": batch["input_ids"], "use_cache": False}
        if "attention_mask" in batch:
            return inputs | {"attention_mask": batch["attention_mask"]}
        if self.masks is None:
            raise ValueError("packed rows need a Scorer with masks")
        dtype = next(model.parameters()).dtype
        inputs |= {"position_ids": batch["position_ids"], "attention_mask": self.masks.of(batch, dtype)}
        return inputs | ({"units": units_of(batch["prefixes"])} if self.masks.by_units else {})

    def _read(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if self.trunk is None:
            logits: Tensor = model(**inputs).logits
            return logits
        kept: list[Tensor] = []
        hook = self.trunk.register_forward_hook(lambda _module, _args, output: kept.append(output[0]))
        try:
            model(**inputs, logits_to_keep=1)
        finally:
            hook.remove()
        return kept[0]

    def token_logps(self, states: Tensor, batch: Batch) -> Tensor:
        """[S, C] in nats, column j the j-th token of a completion, then 0; differentiable in the model.

        Args:
            states: [R, T, H] from `states`.
            batch: places and targets [S, C], as in `logprobs.token_logps`.
        """
        return logprobs.token_logps(states, self.head, batch["places"], batch["targets"])


def scorer_for(model: Any, *, tiled_head: bool = True, packed: bool = False, by_units: bool = True) -> Scorer:
    """The Scorer of an architecture; what it can do is tried on a few tokens of `model`.

    Args:
        model: the causal LM, or the PEFT model around it.
        tiled_head: use the head alone, on completion tokens only, where that gives the model's logits.
        packed: read packed rows, where that gives the numbers of padded ones; else the Scorer has no `masks`.
        by_units: let `model` attend to packed rows unit by unit where it can; faster on processors, and what it says of
            any rows stays the same.
    """
    with _evaluating(model):
        scorer = _with_head(model) if tiled_head else Scorer(None, torch.nn.Identity())
        return _with_masks(scorer, model, by_units=by_units) if packed else scorer


def reads_ahead(model: Any) -> bool:
    """Whether what the model says of a token depends on later ones, as in encoders such as BERT.

    Their log-probs are no likelihoods: each token is read off itself. Asked by gradients, which are exactly 0 where
    attention is masked, in every precision.
    """
    ids = torch.arange(4, device=model.device).remainder(_unadapted(model).config.get_text_config().vocab_size)[None]
    kept: list[Tensor] = []

    def keep(_module: Any, _args: Any, states: Tensor) -> Tensor:
        kept.append(states.detach().requires_grad_())
        return kept[-1]

    hook = model.get_input_embeddings().register_forward_hook(keep)
    try:
        with _evaluating(model), torch.enable_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
            (slopes,) = torch.autograd.grad(logits[:, 0].float().square().sum(), kept[0])
    finally:
        hook.remove()
    seen = slopes[0].float().abs().amax(dim=-1)
    return bool(seen[1:].max() > 1e-5 * seen[0])


def _with_head(model: Any) -> Scorer:
    """The first way to use the head alone that gives the model's logits."""
    whole = Scorer(None, torch.nn.Identity())
    causal, head = _unadapted(model), model.get_output_embeddings()
    if head is None or "logits_to_keep" not in inspect.signature(causal.forward).parameters:
        return whole
    ids = torch.arange(4, device=model.device).remainder(causal.config.get_text_config().vocab_size)[None]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    logits = whole.states(model, batch)
    for finished in _heads(head, causal.config):
        scorer = Scorer(causal.base_model, finished)
        if torch.allclose(finished(scorer.states(model, batch)), logits, rtol=1e-3, atol=1e-3):
            return scorer
    return whole


def _heads(head: Any, config: Any) -> Iterator[Callable[[Tensor], Tensor]]:
    """What the configuration says is done to the logits, which small logits may not show, and the head itself."""
    said = config.get_text_config().to_dict()
    cap, divisor, factor = (said.get(name) for name in ("final_logit_softcapping", "logits_scaling", "logit_scale"))
    if cap:
        yield lambda states: cap * torch.tanh(head(states) / cap)
    if divisor:
        yield lambda states: head(states) / divisor
    if factor:
        yield lambda states: head(states) * factor
    yield head


def _with_masks(scorer: Scorer, model: Any, *, by_units: bool) -> Scorer:
    """`scorer` for packed rows where they give the numbers of padded ones, the window of attention included."""
    causal = _unadapted(model)
    implementation = implementation_of(causal.config)
    if implementation == "sdpa" and by_units:
        causal.set_attn_implementation(BY_UNITS)
        if (found := _reading_packed(scorer, model, by_units=True)) is not scorer:
            return found
        causal.set_attn_implementation(implementation)
    if implementation in ("eager", "sdpa"):
        return _reading_packed(scorer, model, additive=implementation == "eager")
    return scorer


def _reading_packed(scorer: Scorer, model: Any, *, additive: bool = False, by_units: bool = False) -> Scorer:
    """`scorer` with the first kind of masks that gives the numbers of padded rows, or as it is."""
    config = _unadapted(model).config.get_text_config()
    said = config.to_dict()
    window = said.get("sliding_window") if said.get("use_sliding_window", True) else None
    kinds = (True, False) if "sliding_attention" in (said.get("layer_types") or ()) else (False,)
    for by_kind in kinds:
        masks = Masks(additive, window, by_kind, by_units)
        with _window(config, window):
            if _reads_packed(replace(scorer, masks=replace(masks, window=window and PROBE_WINDOW)), model):
                return replace(scorer, masks=masks)
    return scorer


def _reads_packed(scorer: Scorer, model: Any) -> bool:
    most = _unadapted(model).config.get_text_config().vocab_size
    rows = [
        TokenRow(
            "",
            [token % most for token in row.prompt],
            tuple([token % most for token in one] for one in row.completions),
        )
        for row in PROBE
    ]
    found = []
    for layout in (Layout(), Layout(share=True, fill=True)):
        batch = {name: tensor.to(model.device) for name, tensor in PairCollator(0, layout).pad(rows).items()}
        inputs = scorer._inputs(model, batch)  # noqa: SLF001
        try:
            states = scorer._read(model, inputs).flatten(0, 1)[batch["places"][batch["places"] >= 0]]  # noqa: SLF001
        except Exception:  # noqa: BLE001 - an architecture that takes no masks says so in its own way
            return False
        if "units" in inputs and not inputs["units"].reached:
            return False
        found.append(states.float())
    rounding = 1e-3 if model.dtype in (torch.float32, torch.float64) else 3e-2
    return bool((found[0] - found[1]).abs().max() <= rounding * found[0].abs().max())


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Without gradients and dropout, as it was afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


@contextmanager
def _window(config: Any, window: int | None) -> Iterator[None]:
    """A window of attention so short that a few tokens tell whether it is honoured."""
    if window is None:
        yield
        return
    config.sliding_window = PROBE_WINDOW
    try:
        yield
    finally:
        config.sliding_window = window


def _unadapted(model: Any) -> Any:
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model
