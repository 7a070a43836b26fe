"""Say which model a path or hub id means, before loading it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import orjson

from flipguard.errors import ModelError
from flipguard.records import Row

MARKERS = ("config.json", "adapter_config.json")
WHOLE = 64 << 20  # bytes; larger files are hashed by samples
SAMPLES = 1024
SAMPLE = 4096  # bytes

_DECIDING = (".safetensors", ".bin", ".pt", ".json", ".model", ".jinja", ".txt", ".py")
_INDIFFERENT = ("trainer_state.json", "training_args.bin", "all_results.json", "optimizer.pt", "scheduler.pt")


def model_folder(model: str) -> Path | None:
    """The folder `model` means, or None if it is a hub id.

    Raises:
        ModelError: it can only be a folder, and there is none or it holds no model. The network is not asked.
    """
    path = Path(model).expanduser()
    if not path.exists():
        if looks_local(model):
            raise ModelError(f"{model}: no such folder; looked for {' or '.join(MARKERS)} in it. {_beside(path)}")
        return None
    if not path.is_dir():
        raise ModelError(f"{model}: is a file. Name the folder it lies in, with {' or '.join(MARKERS)}.")
    if not any((path / marker).is_file() for marker in MARKERS):
        inside = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
        shown = ", ".join(inside[:8]) + (", ..." if len(inside) > 8 else "") if inside else "nothing"
        raise ModelError(f"{model}: neither {' nor '.join(MARKERS)} in this folder; found: {shown}.")
    return path


def looks_local(model: str) -> bool:
    """Whether `model` cannot be a hub id, which is `name` or `owner/name`.

    >>> [looks_local(m) for m in ("./dpo", "~/dpo", "/models/dpo", "runs/dpo/final", "gpt2", "Qwen/Qwen3-4B")]
    [True, True, True, True, False, False]
    """
    return model.startswith((".", "~", os.sep)) or model.count("/") > 1 or "\\" in model or not model


def weights_sha256(folder: Path) -> str:
    """One hash of everything in `folder` that determines answers: weights, configuration, tokenizer, template.

    Files above 64 MiB are hashed by their size and 1,024 samples of 4 KiB, evenly spread: training moves nearly all
    weights, and reading a 70B model twice takes minutes.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if path.is_file() and path.suffix in _DECIDING and path.name not in _INDIFFERENT:
            digest.update(orjson.dumps([path.name, path.stat().st_size, _file_sha256(path)]))
    return digest.hexdigest()


def adapter_base(folder: Path) -> str | None:
    """The model that an adapter folder adapts; None for a folder with a model of its own."""
    path = folder / "adapter_config.json"
    if (folder / "config.json").is_file() or not path.is_file():
        return None
    try:
        base = orjson.loads(path.read_bytes()).get("base_model_name_or_path")
    except (orjson.JSONDecodeError, AttributeError) as error:
        raise ModelError(f"{path}: cannot be read as a JSON object.") from error
    if not isinstance(base, str) or not base:
        raise ModelError(f"{path}: base_model_name_or_path does not say which model this adapter belongs to.")
    return base


def identity(model: str) -> Row:
    """What tells this model from any other: hashes for a folder, the commit for a hub id.

    Raises:
        ModelError: there is no such model, or the hub cannot be reached and no copy is in its cache.
    """
    folder = model_folder(model)
    if folder is None:
        return {"model": model, "model_revision": hub_revision(model)}
    base = adapter_base(folder)
    own: Row = {"model": model, "model_sha256": weights_sha256(folder)}
    return own if base is None else own | {f"base_{key}": value for key, value in identity(base).items()}


def hub_revision(model: str) -> str:
    """The commit that the hub id `model` stands for now, or last time if the hub cannot be reached."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    reasons = []
    for marker in MARKERS:
        try:
            return Path(hf_hub_download(model, marker)).parent.name
        except LocalEntryNotFoundError:
            reasons = ["it is not in the local cache, and the hub cannot be reached"]
            break
        except EntryNotFoundError:
            reasons.append(f"no {marker}")
        except (OSError, HFValidationError) as error:
            reasons = [one_line(error)]
            break
    raise ModelError(
        f"{model}: no folder of this name here, and as a hub id it cannot be had: {', '.join(reasons)}. "
        "Check the name; a folder may be written as ./name."
    )


def one_line(error: BaseException, limit: int = 200) -> str:
    """The first sentence or so of an error that another library raised."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _file_sha256(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if size <= WHOLE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        for number in range(SAMPLES):
            file.seek(number * (size - SAMPLE) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def _beside(path: Path) -> str:
    if not path.parent.is_dir():
        return f"The folder {path.parent} does not exist either."
    folders = sorted(entry.name for entry in path.parent.iterdir() if entry.is_dir())
    return f"Folders beside it: {', '.join(folders[:8])}." if folders else f"{path.parent} holds no folders."
