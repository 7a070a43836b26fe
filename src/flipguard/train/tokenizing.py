"""Rows of text -> token ids and faults, a chunk at a time, in as many processes as help."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flipguard.errors import DataError, shown
from flipguard.records import RowId
from flipguard.train.faults import Fault, digests, edit_distance, faults_of
from flipguard.train.formats import Example, Format, Kind, MalformedError
from flipguard.train.formats.example import one_turn
from flipguard.train.sources import Numbered
from flipguard.train.texts import tokenize

CHUNK = 1024  # rows
ALONE = 8  # chunks that one process reads before others are asked to help
ELSEWHERE = 1 << 30  # beside the faults: a row that `where` or its format's authors leave out
RELABELLED = 1 << 29  # beside the faults: a pair whose sides a reward model swapped

# one row of a table: which row of the source, its line, lengths of prompt and completions, faults, label (-1: none)
COLUMNS = np.dtype(
    [("number", "i8"), ("line", "i8"), ("prompt", "i4"), ("first", "i4"), ("second", "i4"), ("faults", "i8"),
     ("label", "i1"), ("digest", "u8"), ("swapped", "u8"), ("distance", "f4")]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows: COLUMNS of each, all token ids in a row, ids where rows have them, and why rows are malformed."""

    rows: NDArray[Any]
    tokens: NDArray[np.int32]
    ids: list[RowId | None]
    reasons: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reader:
    """Turns rows of one source into a Part.

    Args:
        form: how its rows are read.
        kind: what they shall become; a pair may become two unpaired rows, its chosen half, or its prompt alone.
        tokenizer: of the model.
        chat: whether the rows are conversations.
        wrap: whether texts become conversations first.
        where: the columns that select rows.
        source: for messages.
        swaps: says of pairs whether their rejected answers are better; None leaves the labels as they are.
    """

    form: Format
    kind: Kind
    tokenizer: Any
    chat: bool
    wrap: bool
    where: dict[str, str | int | bool]
    source: str
    swaps: Callable[[list[Example]], list[bool]] | None = None

    def __call__(self, chunk: list[Numbered]) -> Part:
        """Read, check and tokenize a chunk."""
        found: list[tuple[Numbered, Example]] = []
        rows, reasons = [], {}
        for item in chunk:
            try:
                example = self.example(item)
            except MalformedError as problem:
                reasons[item.number] = str(problem)
                rows.append(_blank(item, int(Fault.MALFORMED)))
                continue
            if example is None:
                rows.append(_blank(item, ELSEWHERE))
            else:
                found.append((item, example))
        checked = [(item, example, int(faults_of(example, self.form))) for item, example in found]
        if self.swaps is not None and found:
            swaps = self.swaps([pair for _, pair in found])
            checked = [_swapped(*item) if swap else item for swap, item in zip(swaps, checked, strict=True)]
        return self._tokenized(checked, rows, reasons)

    def place(self, item: Numbered) -> str:
        """Where a row stands: `file:line`, or `source[number]`."""
        return f"{self.source}:{item.line}" if item.line else f"{self.source}[{item.number}]"

    def example(self, item: Numbered) -> Example | None:
        """A row in its one form; None where it is not asked for.

        Raises:
            MalformedError: it is not of the format.
        """
        if any(item.row.get(column) != value for column, value in self.where.items()):
            return None
        absent = self.form.refuses(item.row)
        if absent:
            keys = shown(", ".join(map(str, item.row)))
            raise MalformedError(f"is not of the format {self.form.name}: {absent}; its keys are {keys}")
        example = self.form.read(item.row)
        if example is None:
            return None
        if self.wrap and isinstance(example.prompt, str):
            example = as_conversation(example, self.form)
        if isinstance(example.prompt, str) is self.chat:
            raise MalformedError("texts and conversations are mixed in one file. Choose one")
        return replace(example, completions=(), tied=False) if self.kind == "prompts" else example

    def _tokenized(
        self, examples: list[tuple[Numbered, Example, int]], rows: list[tuple[Any, ...]], reasons: dict[int, str]
    ) -> Part:
        if self.kind == "unpaired":
            examples = [(item, half, bits) for item, pair, bits in examples for half in halves(pair)]
        if self.kind == "supervised":
            examples = [(item, replace(one, completions=one.completions[:1]), bits) for item, one, bits in examples]
        tokens, ids = [], []
        asked = [example for _, example, _ in examples]
        places = [self.place(item) for item, _, _ in examples]
        for (item, example, faults), parts in zip(examples, tokenize(asked, places, self.tokenizer), strict=True):
            prompt, *sides = parts
            if len(sides) == 2 and sides[0] == sides[1]:
                faults |= Fault.EQUAL_REPLIES
            distance = edit_distance(*sides) if len(sides) == 2 else 1.0
            second = len(sides[1]) if len(sides) == 2 else 0
            label = -1 if example.label is None else int(example.label)
            lengths = (len(prompt), len(sides[0]) if sides else 0, second)
            rows.append((item.number, item.line, *lengths, faults, label, *digests(example), distance))
            tokens.append(np.fromiter(chain(prompt, *sides), np.int32, sum(lengths)))
            ids.append(example.id)
        table = np.array(rows, COLUMNS)
        order = np.argsort(table["number"], kind="stable")  # rows without tokens stand first until now
        names = [*[None] * (len(rows) - len(ids)), *ids]
        flat = np.concatenate(tokens) if tokens else np.empty(0, np.int32)
        return Part(table[order], flat, [names[place] for place in order], reasons)


def _swapped(item: Numbered, pair: Example, faults: int) -> tuple[Numbered, Example, int]:
    return item, replace(pair, completions=pair.completions[::-1]), faults | RELABELLED


def halves(example: Example) -> Iterator[Example]:
    """A pair as a desirable and an undesirable row; a row that is none, as it is."""
    if len(example.completions) == 1:
        yield example
        return
    for completion, label in zip(example.completions, (True, False), strict=True):
        yield replace(example, completions=(completion,), label=label)


def as_conversation(example: Example, form: Format) -> Example:
    """A text prompt as the turns it has, and each completion as what the assistant says."""
    if form.turns is one_turn:
        answers = [[{"role": "assistant", "content": str(text).strip()}] for text in example.completions]
        return replace(example, prompt=one_turn(str(example.prompt)), completions=tuple(answers))
    turns = form.turns(str(example.prompt))
    asked = turns[:-1] if turns and not turns[-1]["content"] else turns
    completions = (form.turns(f"{example.prompt}{text}")[len(asked) :] for text in example.completions)
    return replace(example, prompt=asked, completions=tuple(completions))


def _blank(item: Numbered, faults: int) -> tuple[Any, ...]:
    return (item.number, item.line, 0, 0, 0, faults, -1, 0, 0, 1.0)


def read_parts(reader: Reader, rows: Iterable[Numbered], workers: int | None) -> Iterator[Part]:
    """The parts of a source in its order; many rows are read by `workers` processes (default: one per core).

    At most two chunks per process are held, so a source may be larger than memory.
    """
    chunks = _chunks(rows)
    few = list(islice(chunks, ALONE))
    count = min(workers or len(os.sched_getaffinity(0)), 16)
    if len(few) < ALONE or count == 1 or reader.swaps is not None:
        yield from map(reader, chain(few, chunks))
        return
    yield from _pooled(reader, chain(few, chunks), count)


def _pooled(reader: Reader, chunks: Iterator[list[Numbered]], count: int) -> Iterator[Part]:
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else None)
    waiting: deque[Future[Part]] = deque()
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(reader,))
    try:
        for chunk in chunks:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: the child uses none
                waiting.append(pool.submit(_work, chunk))
            if len(waiting) > 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise DataError(
            f"{reader.source}: a process that tokenizes was killed, perhaps for memory. Lower data.workers."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_reader: list[Reader] = []  # of a process that does nothing else


def _begin(reader: Reader) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _reader.append(reader)


def _work(chunk: list[Numbered]) -> Part:
    return _reader[0](chunk)


def _chunks(rows: Iterable[Numbered]) -> Iterator[list[Numbered]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
