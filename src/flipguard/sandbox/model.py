"""Tiny Llamas with random weights, for the words of the world."""

from __future__ import annotations

from typing import Any

from flipguard.sandbox.tokenizer import MAX_LENGTH

WIDTH = 128
LAYERS = 2
TRUNK_LAYERS = 4  # of the reward model: to hold an answer against what one would say oneself takes more than saying it
HEADS = 4


def build_model(tokenizer: Any, *, seed: int, layers: int = LAYERS) -> Any:
    """A `LlamaForCausalLM` that knows nothing yet; the same seed gives the same weights, torch's own is left alone."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
