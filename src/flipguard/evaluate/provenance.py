"""Where a comparison comes from: what was read, by which options, and what its reader must know beside the verdict."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

from flipguard import __version__
from flipguard.errors import DataError
from flipguard.evaluate.align import Aligned
from flipguard.evaluate.comparison import Comparison, Coverage
from flipguard.evaluate.intake import BadLines
from flipguard.evaluate.runs import Judged, Run
from flipguard.evaluate.workers import COMPUTES

SHOWN_BAD_LINES = 20
BLOCK = 1 << 22  # bytes hashed at once


def notes(aligned: Aligned, bad: BadLines, comparison: Comparison) -> list[str]:
    """What the reader of the verdict must know beside it, one sentence each."""
    pairs = aligned.pairs
    shared = 0 if pairs.independent() else len(pairs) - len(set(pairs.groups()))
    single = sum(len({verdict["order"] for verdict in verdicts}) == 1 for verdicts in pairs.verdicts)
    changed, duplicates = aligned.alignment.changed_prompts, aligned.alignment.duplicates
    same = comparison.health and comparison.health.identical
    told = [
        (len(bad.told), "Malformed lines skipped: {:,}."),
        (duplicates, "Duplicate rows left out: {:,}."),
        (changed, "Prompts that differ between the runs: {:,}."),
        (single, "Pairs judged in one order only, so that position bias is not controlled: {:,}."),
        (shared, "Pairs that share a cluster with another, so clusters set the bound: {:,}."),
        (same.k if same else 0, "Byte-identical answers that were graded apart, which are ties here: {:,}."),
    ]
    partly = [
        _partly(run) for run in comparison.companions if run.alignment.only_old or run.alignment.only_new or run.invalid
    ]
    return [*(sentence.format(count) for count, sentence in told if count), *aligned.notes, *partly]


def _partly(run: Coverage) -> str:
    """What a further run leaves open."""
    fit = run.alignment
    return (
        f"--{run.option} has {fit.matched:,} of the {fit.old:,} prompts compared and {fit.only_new:,} others; "
        f"{run.invalid:,} of its pairs could not be graded."
    )


def provenance(
    command: Sequence[str], inputs: Sequence[Mapping[str, Any]], options: Mapping[str, Any], further: Mapping[str, Any]
) -> dict[str, Any]:
    """The command, the files, the options, `further` facts, and the versions that made the numbers."""
    return {
        **({"command": shlex.join(command)} if command else {}),
        "inputs": list(inputs),
        **{name: str(value) if isinstance(value, Path) else value for name, value in options.items()},
        **further,
        "flipguard": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def reading(aligned: Aligned, bad: BadLines) -> dict[str, Any]:
    """Lines that were skipped and prompts without a partner, the first few of each by name."""
    return {
        "skipped": len(bad.told),
        "skipped_lines": bad.told[:SHOWN_BAD_LINES],
        "unmatched_examples": {"old": aligned.unmatched_old, "new": aligned.unmatched_new},
    }


def run_inputs(format_name: str, run: Run | Judged, hashes: Hashes | None = None) -> list[dict[str, Any]]:
    """The files of a run with their hash, and what was taken from them; the hash from `hashes` where it is there."""
    rows = len(run.judgments) if isinstance(run, Judged) else len(run.entries)
    told = {"format": format_name, "graded": run.graded, "rows": rows}
    sums = {} if hashes is None else hashes.found()
    return [{"path": str(path), **told, "sha256": sums.get(path) or _sha256(path)} for path in run.files]


def file_input(path: Path, format_name: str, rows: int) -> dict[str, Any]:
    """A file that is no run."""
    return {"path": str(path), "format": format_name, "graded": {}, "rows": rows, "sha256": _sha256(path)}


class Hashes:
    """The hashes of large files, computed beside other work; what cannot be read there is left to who needs it."""

    def __init__(self) -> None:
        self._sums: dict[Path, str] = {}
        self._threads: dict[tuple[Path, ...], Thread] = {}

    def begin(self, run: Run | Judged) -> None:
        """Begin to compute those of the files of a run, unless that was begun before."""
        paths = tuple(run.files)
        if paths not in self._threads:
            self._threads[paths] = Thread(target=self._hash, args=(paths,), name=COMPUTES, daemon=True)
            self._threads[paths].start()

    def found(self) -> dict[Path, str]:
        """The hash of each file, when all are there."""
        for thread in self._threads.values():
            thread.join()
        return self._sums

    def _hash(self, paths: Iterable[Path]) -> None:
        for path in paths:
            with suppress(OSError):
                if path.is_file():
                    self._sums[path] = _sha256(path)


def _sha256(path: Path) -> str:
    """The hash in blocks so large that other threads are hardly asked for the interpreter."""
    if not path.is_file():  # read already, and there is no second time
        raise DataError(f"{path}: is not a regular file but a pipe or device. Save it to a file first.")
    told, block = hashlib.sha256(), memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        while read := file.readinto(block):
            told.update(block[:read])
    return told.hexdigest()
