"""Several processes of one run: the first decides, the others follow, and an error of one is an error of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from flipguard.errors import FlipGuardError, ToldElsewhereError, told
from flipguard.processes import is_first, is_first_here

T = TypeVar("T")


def count() -> int:
    """How many processes have found each other; 1 where none was looked for."""
    return distributed.get_world_size() if _joined() else 1


def number() -> int:
    """Which of them this is, from 0."""
    return distributed.get_rank() if _joined() else 0


@contextmanager
def agreed() -> Iterator[None]:
    """Fail in all processes where the block fails in one, with one message; nothing in it may wait for the others.

    Raises:
        FlipGuardError: in the first process, what went wrong in it or in another.
        ToldElsewhereError: in the others.
    """
    mine: Exception | None = None
    try:
        yield
    except Exception as error:  # noqa: BLE001 - raised again below, where others know of it
        mine = error
    if not _joined():
        if mine is not None and not is_first_here():
            raise ToldElsewhereError from mine
        if mine is not None:
            raise mine
        return
    messages = gathered(None if mine is None else told(mine))
    wrong = [(index, message) for index, message in enumerate(messages) if message is not None]
    if wrong and not is_first():
        raise ToldElsewhereError from mine
    if mine is not None:
        raise mine
    if wrong:
        raise FlipGuardError(f"process {wrong[0][0]} of {count()}: {wrong[0][1]}")


def from_first(make: Callable[[], T]) -> T:
    """What `make` returns in the first process, where alone it is called; an error there is an error of all."""
    made: list[Any] = [None]
    with agreed():
        if is_first():
            made = [make()]
    if _joined():
        distributed.broadcast_object_list(made)
    result: T = made[0]
    return result


def gathered(value: T) -> list[T]:
    """The values of all processes, in their order."""
    found: list[Any] = [value] * count()
    if _joined():
        distributed.all_gather_object(found, value)
    return found


def meet() -> None:
    """Wait until every process is here."""
    if _joined():
        distributed.barrier()


def summed(tensor: Tensor, device: torch.device) -> Tensor:
    """The sum over all processes of a CPU tensor; it travels by way of `device`."""
    if not _joined():
        return tensor
    total = tensor.to(device, copy=True)
    distributed.all_reduce(total)
    return total.cpu()


def _joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()
