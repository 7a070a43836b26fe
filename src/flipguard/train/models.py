"""Loading models and tokenizers, and saying in one line why one cannot be loaded."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import AutoPeftModelForCausalLM, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.integrations import deepspeed
from transformers.utils import logging

from flipguard.errors import ModelError, shown
from flipguard.train.attention import implementation_of
from flipguard.train.recipe import ModelSpec
from flipguard.weights import model_folder

NAMES = {"_name_or_path", "transformers_version"}  # of a config: they say where it came from, not what it does

logging.disable_progress_bar()  # of loading and saving shards: our own progress says what matters


def load_model(spec: ModelSpec) -> Any:
    """A causal language model in evaluation mode, all its weights trainable; an adapter is merged into its base.

    Raises:
        ModelError: the folder or hub id does not exist or holds no causal language model.
    """
    dtype = "auto" if spec.dtype == "auto" else getattr(torch, spec.dtype)
    chosen = {} if spec.attn_implementation is None else {"attn_implementation": spec.attn_implementation}
    if spec.quantization is not None:
        return _quantized(spec, dtype=dtype, **chosen)
    if is_adapter(spec):
        model = _load(AutoPeftModelForCausalLM, spec, dtype=dtype, **chosen).merge_and_unload()
        return model.requires_grad_(requires_grad=True).eval()
    model, told = _load(AutoModelForCausalLM, spec, dtype=dtype, output_loading_info=True, **chosen)
    if told["missing_keys"]:
        missing = sorted(told["missing_keys"])
        raise ModelError(f"{spec.path}: no whole language model: {len(missing)} weights are missing, as {missing[0]}.")
    if model._hf_peft_config_loaded:  # noqa: SLF001 - the only mark transformers leaves
        raise ModelError(f"{spec.path}: is an adapter. Download it, so that it can be merged into its base.")
    return model.requires_grad_(requires_grad=True).eval()


def _quantized(spec: ModelSpec, **chosen: Any) -> Any:
    """Weights in 4 bits, frozen, where the GPU is; the rest of the model is made ready for an adapter."""
    if not torch.cuda.is_available():
        raise ModelError(f"{spec.path}: quantization nf4 needs a GPU, and there is none here. Remove the key.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"{spec.path}: quantization nf4 needs bitsandbytes: pip install 'flipguard[qlora]'")
    if is_adapter(spec):
        raise ModelError(f"{spec.path}: is an adapter, and 4-bit weights cannot take it in. Name a whole model.")
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    place = {"": torch.cuda.current_device()}
    model = _load(AutoModelForCausalLM, spec, quantization_config=four_bits, device_map=place, **chosen)
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False).eval()


def is_adapter(spec: ModelSpec) -> bool:
    """Whether the folder holds a PEFT adapter rather than a whole model."""
    return (Path(spec.path) / "adapter_config.json").is_file()


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
    config = model.config.get_text_config().to_dict()
    length: int | None = config.get("max_position_embeddings") or config.get("n_positions")
    return length


def fingerprint(model: Any) -> str:
    """SHA-256 over the configuration and the names, shapes, dtypes and bytes of all weights."""
    config = {name: value for name, value in model.config.to_dict().items() if name not in NAMES}
    digest = hashlib.sha256(f"{json.dumps(config, sort_keys=True, default=str)}{type(model).__name__}".encode())
    digest.update(implementation_of(model.config).encode())  # kernels round differently
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _load(kind: Any, spec: ModelSpec, **options: Any) -> Any:
    model_folder(spec.path)
    try:
        with _whole():
            return kind.from_pretrained(spec.path, revision=spec.revision, **options)
    except Exception as error:  # noqa: BLE001 - the hub, safetensors and transformers raise dozens of types here
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{spec.path}: cannot be loaded ({shown(reason, 200)}).") from None


@contextmanager
def _whole() -> Iterator[None]:
    """Every process loads all weights, also with ZeRO-3, which shares them out later: π_0 is asked before that."""
    kept = deepspeed._hf_deepspeed_config_weak_ref  # noqa: SLF001 - there is a setter and no getter
    config = None if kept is None else kept()
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if config is not None:
            deepspeed.set_hf_deepspeed_config(config)
