"""Loading models and tokenizers, and saying in one line why one cannot be loaded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from flipguard.errors import ModelError, shown
from flipguard.train.checking import looks_local
from flipguard.train.recipe import ModelSpec

logging.disable_progress_bar()  # of loading and saving shards: our own progress says what matters


def load_model(spec: ModelSpec) -> Any:
    """A causal language model in evaluation mode.

    Raises:
        ModelError: the folder or hub id does not exist or holds no causal language model.
    """
    dtype = "auto" if spec.dtype == "auto" else getattr(torch, spec.dtype)
    chosen = {} if spec.attn_implementation is None else {"attn_implementation": spec.attn_implementation}
    return _load(AutoModelForCausalLM, spec, dtype=dtype, **chosen).eval()


def load_tokenizer(spec: ModelSpec) -> Any:
    """The tokenizer of the model, with a padding token (its end token where it has none of its own)."""
    tokenizer = _load(AutoTokenizer, spec)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{spec.path}: the tokenizer has no end token, so completions would never end. Set eos_token.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def context_length(model: Any) -> int | None:
    """The longest sequence the model can read, in tokens, where its config says so."""
    length: int | None = model.config.to_dict().get("max_position_embeddings")
    return length


def fingerprint(model: Any) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of all parameters: the same weights, the same fingerprint."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _load(kind: Any, spec: ModelSpec, **options: Any) -> Any:
    path = Path(spec.path)
    if looks_local(spec.path) and not path.is_dir():
        raise ModelError(f"{spec.path}: no such model folder. Train or download it first, or name a hub id.")
    if path.is_dir() and not any((path / name).exists() for name in ("config.json", "adapter_config.json")):
        raise ModelError(f"{spec.path}: holds no config.json, so it is no model folder{_unfinished(path)}.")
    try:
        return kind.from_pretrained(spec.path, revision=spec.revision, **options)
    except Exception as error:  # noqa: BLE001 - the hub, safetensors and transformers raise dozens of types here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{spec.path}: cannot be loaded ({shown(reason, 200)}).") from None


def _unfinished(path: Path) -> str:
    return " (a training run that has not finished: --resume it)" if any(path.glob("checkpoint-*")) else ""
