"""Which of several processes this one is: `torchrun` and `accelerate launch` say so in the environment."""

from __future__ import annotations

import os


def is_first() -> bool:
    """Whether this process speaks and writes for all: it is the only one, or the first of those started together."""
    return os.environ.get("RANK", "0") == "0"


def is_first_here() -> bool:
    """The same for this machine alone: it speaks where the machines have not found each other yet."""
    return os.environ.get("LOCAL_RANK", "0") == "0"
