"""Starts the real command on two processes, as a user does."""

import os
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"}


def start(*words, launcher=TORCHRUN, **environment):
    """`launcher -m flipguard words`, its output piped."""
    command = [*launcher, "-m", "flipguard", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=os.environ | QUIET | environment, **pipes)


def finish(process):
    """(exit code, standard output, standard error)."""
    output, errors = process.communicate(timeout=240)
    return process.returncode, output, errors


def kill(process):
    """SIGKILL the launcher and all it started, at once."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.kill()
    psutil.wait_procs(family)
    process.communicate()


@pytest.fixture
def launch():
    """start, finish and kill; and torchrun itself."""
    return SimpleNamespace(start=start, finish=finish, kill=kill, torchrun=TORCHRUN)
