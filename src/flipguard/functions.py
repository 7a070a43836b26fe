"""Find the function that a name like `package.module:function` stands for."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from flipguard.errors import JudgeError, choose


@dataclass(frozen=True, slots=True)
class Found:
    """A function, the file it was named in, and the hash of that file: edited code is other code."""

    name: str
    function: Callable[..., Any]
    file: str | None
    sha256: str | None


@contextmanager
def importable_here() -> Iterator[None]:
    """Let modules of the current folder be imported, as `python -m` would."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with suppress(ValueError):  # what was imported may have tidied up
            sys.path.remove(here)


def find_function(name: str, place: str) -> Found:
    """The function `package.module:function` stands for; `place` is who asked for it: `--judge`, `dpo.yaml: reward`.

    Raises:
        JudgeError: there is no such module or function, or importing it failed; says what is there instead.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise JudgeError(f"{place} {name}: expected package.module:function.")
    module = _import(name, module_name, place)
    function = vars(module).get(attribute)
    if not callable(function):
        raise JudgeError(_not_there(name, module, attribute, place))
    file = vars(module).get("__file__")  # None where it is written in C
    sha256 = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None
    return Found(name, function, file, sha256)


def _import(name: str, module_name: str, place: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            raise JudgeError(f"{place} {name}: no module '{error.name}'. {_modules_here(error.name)}") from None
        raise JudgeError(f"{place} {name}: importing it failed: {where_it_failed(error, None)}") from error
    except (Exception, SystemExit) as error:  # code of the user may raise anything while it is imported
        raise JudgeError(f"{place} {name}: importing it failed: {where_it_failed(error, None)}") from error


def _modules_here(wanted: str) -> str:
    here = sorted(path.stem for path in Path.cwd().glob("*.py"))
    if not here:
        return f"Neither installed, nor in the current folder {Path.cwd()}, which holds no .py file."
    return f"Not installed; in the current folder: {choose(wanted, here)}"


def _not_there(name: str, module: ModuleType, attribute: str, place: str) -> str:
    functions = [
        key
        for key, value in vars(module).items()
        if callable(value) and not key.startswith("_") and value.__module__ == module.__name__
    ]
    if attribute in vars(module):
        kind_found = type(vars(module)[attribute]).__name__
        return f"{place} {name}: '{attribute}' in {module.__file__} is a {kind_found}, not a function."
    if not functions:
        return f"{place} {name}: {module.__file__} defines no function at all."
    return f"{place} {name}: {module.__file__} has no '{attribute}'. {choose(attribute, functions)}"


def where_it_failed(error: BaseException, file: str | None) -> str:
    """One line: what was raised, and the last line of `file` that was running (without it: the last of all)."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if file is not None and os.path.realpath(frame.filename) == file]
    text = " ".join(str(error).split())
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    chosen = (inside or frames)[-1:]
    return f"{said} ({chosen[0].filename}:{chosen[0].lineno})" if chosen else said
