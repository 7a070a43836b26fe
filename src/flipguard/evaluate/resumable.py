"""Write a JSONL file unit by unit, so that a kill at any point costs at most the unit in flight.

    out.jsonl            the finished file; appears whole, in the order of the input, or not at all
    out.jsonl.partial    the units done so far, one row a line, in the order they were worked on
    out.jsonl.run.json   the fingerprint of everything that determines the rows; stays as provenance
    out.jsonl.lock       held by the process at work; the system lets go of it even after kill -9

A restart with the same fingerprint cuts off what a kill left torn, redoes that unit and goes on; the finished file is
byte for byte that of an unbroken run, provided that the work itself is a function of the unit. With another
fingerprint it refuses, and names what differs. While a `.partial` is being filled, `out.jsonl` does not exist.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from flipguard import __version__
from flipguard.errors import DataError, shown
from flipguard.files import replacing, to_json, write_bytes
from flipguard.locks import locked
from flipguard.progress import follow
from flipguard.records import Row

SCHEMA = "flipguard.run/1"

Unit = Sequence[int]
"""The rows of one piece of work, by their position in the finished file; all units together hold each position once."""

Worker = Callable[[int], list[Row]]
"""Number of a unit -> its rows, in the order of the unit."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the file: `resumed` rows were there from a killed run; `already` says that all were."""

    rows: int
    resumed: int
    already: bool


def write_units(
    out: Path,
    units: Sequence[Unit],
    start: Callable[[], Worker],
    *,
    fingerprint: Row,
    overwrite: bool = False,
    label: str = "rows",
) -> Written:
    """Bring `out` to completion, from wherever an earlier run of the same work left it.

    Args:
        out: the file to write.
        units: the work, in the order in which it is done.
        start: makes the worker; called once and only if something is left to do, so it may load a model. What it
            raises leaves every file as it was, even under `overwrite`.
        fingerprint: everything that determines the rows, as plain JSON values.
        overwrite: throw away what is there, finished or not, and begin again.
        label: what the progress display calls the work.

    Raises:
        DataError: `out` belongs to other work, another process is writing it, or it cannot be written.
    """
    total = sum(len(unit) for unit in units)
    fingerprint = orjson.loads(to_json(fingerprint))  # as it will come back from the file
    with _locked(out):
        if not overwrite:
            _refuse_other_work(out, fingerprint)
            if out.exists():
                _partial(out).unlink(missing_ok=True)
                return Written(total, total, already=True)
        done = 0 if overwrite else _keep_whole_units(_partial(out), units)
        worker = start() if done < len(units) else None
        _begin(out, fingerprint, overwrite=overwrite)
        if worker is not None:
            _work(out, units, worker, done=done, label=label)
        with _writable(out):
            _finish(out, units)
    return Written(total, sum(len(unit) for unit in units[:done]), already=False)


def _begin(out: Path, fingerprint: Row, *, overwrite: bool) -> None:
    record = {"schema": SCHEMA, "fingerprint": fingerprint, "made_with": _made_with()}
    with _writable(out):
        for path in (out, _partial(out), _run(out)) if overwrite else ():
            path.unlink(missing_ok=True)
        write_bytes(_run(out), orjson.dumps(record, option=orjson.OPT_INDENT_2) + b"\n")


def _work(out: Path, units: Sequence[Unit], worker: Worker, *, done: int, label: str) -> None:
    total = sum(len(unit) for unit in units)
    finished = sum(len(unit) for unit in units[:done])
    with _writable(out):
        file = _partial(out).open("ab")
    with file, follow(label, total, done=finished) as advance:
        for number in range(done, len(units)):
            rows = worker(number)
            if len(rows) != len(units[number]):
                raise AssertionError(f"unit {number} has {len(units[number])} rows, its worker made {len(rows)}")
            lines = b"".join(to_json(row) + b"\n" for row in rows)
            with _writable(out):
                file.write(lines)
                file.flush()
            advance(len(rows))


def _finish(out: Path, units: Sequence[Unit]) -> None:
    """Put the rows of the partial file into their final order; only then is there an `out`."""
    partial = _partial(out)
    with partial.open("rb") as source:
        spans: dict[int, int] = {}
        offset = 0
        for position in (position for unit in units for position in unit):
            spans[position] = offset
            offset += len(source.readline())
        with replacing(out) as target:
            for position in range(len(spans)):
                source.seek(spans[position])
                target.write(source.readline())
    partial.unlink()


def _keep_whole_units(partial: Path, units: Sequence[Unit]) -> int:
    """Cut `partial` after its last whole unit; returns how many units it then holds."""
    if not partial.exists():
        return 0
    done = keep = 0
    with partial.open("r+b") as file:
        for unit in units:
            if not all(_whole(file.readline()) for _ in unit):
                break
            done, keep = done + 1, file.tell()
        file.truncate(keep)
    return done


def _whole(line: bytes) -> bool:
    if not line.endswith(b"\n"):
        return False
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:  # a power cut can leave blocks of zeros
        return False


def _refuse_other_work(out: Path, fingerprint: Row) -> None:
    found = [path for path in (out, _partial(out)) if path.exists()]
    if not found:
        return
    then = _recorded(out)
    way_out = "Name another --out, or begin again with --overwrite."
    if then is None:
        raise DataError(f"{found[0]}: exists, and no {_run(out).name} beside it says how it was made. {way_out}")
    differing = [key for key in {**then, **fingerprint} if then.get(key) != fingerprint.get(key)]
    if differing:
        changes = "; ".join(_change(key, then.get(key), fingerprint.get(key)) for key in differing[:4])
        more = f"; and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise DataError(f"{found[0]}: was made with other settings: {changes}{more}. {way_out}")


def _change(key: str, then: object, now: object) -> str:
    if key.endswith("_sha256"):
        return f"{key.removesuffix('_sha256')} has other content"
    return f"{key} was {shown(then)}, is now {shown(now)}"


def _recorded(out: Path) -> Row | None:
    try:
        record = orjson.loads(_run(out).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        return None
    fingerprint = record.get("fingerprint")
    return fingerprint if isinstance(fingerprint, dict) else None


@contextmanager
def _writable(out: Path) -> Iterator[None]:
    """What the file system refuses becomes one line; the partial file stays for the next attempt."""
    try:
        yield
    except OSError as error:
        place = error.filename or out
        raise DataError(
            f"{place}: cannot be written ({error.strerror or error}). "
            "Once that is mended, the same command goes on where it stopped."
        ) from error


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    if out.is_dir():
        raise DataError(f"{out}: is a folder, not a file. Name a file inside it.")
    with ExitStack() as stack:
        with _writable(out):
            stack.enter_context(locked(out, way_out="Wait for that one, or name another --out."))
        yield


def _made_with() -> Row:
    return {"flipguard": __version__, "python": platform.python_version()}


def _partial(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def _run(out: Path) -> Path:
    return out.with_name(out.name + ".run.json")
