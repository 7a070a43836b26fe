"""Which of several processes this one is, as `torchrun` and `accelerate launch` say, and how it waits."""

from __future__ import annotations

import atexit
import os
import sys


def is_first() -> bool:
    """Whether this process speaks and writes for all: it is the only one, or the first of those started together."""
    return os.environ.get("RANK", "0") == "0"


def is_first_here() -> bool:
    """The same for this machine alone: it speaks where the machines have not found each other yet."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def end(code: int) -> int:
    """`code`; but where this is one of several processes that have found each other, end it with that code, at once.

    Its work is done and told then. Left to the interpreter, threads of gloo now and then abort it on the way out.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return code
    atexit._run_exitfuncs()  # noqa: SLF001 - reporters finish their uploads there; there is no public one
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def before_torch() -> None:
    """Settings that must be there before torch is imported.

    Threads that wait shall sleep, not spin: on a busy machine spinning makes small models many times slower. And what
    libraries say about each other's names is silenced: no user can act on it.
    """
    import warnings

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.filterwarnings("ignore", category=FutureWarning)
