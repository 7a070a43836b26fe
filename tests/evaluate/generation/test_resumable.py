from __future__ import annotations

import shutil

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipguard.errors import DataError
from flipguard.evaluate.resumable import write_units

UNITS = [[4, 1], [0, 5, 2], [3]]
HOSTILE = ["", "\ud800 lone", "line\nbreak\r\u2028\x00\x1b[31m", "漢字 עברית", '"}\\', "x" * 5000]


class KilledError(Exception):
    pass


def rows_of(number):
    return [{"row": position, "text": HOSTILE[position]} for position in UNITS[number]]


def write(out, *, work=rows_of, fingerprint=None, overwrite=False):
    return write_units(out, UNITS, lambda: work, fingerprint=fingerprint or {"seed": 1}, overwrite=overwrite)


def dying_at(unit):
    def work(number):
        if number == unit:
            raise KilledError
        return rows_of(number)

    return work


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The finished bytes, and the bytes of the partial file just before it was finished."""
    out = tmp_path_factory.mktemp("unbroken") / "rows.jsonl"
    with pytest.raises(KilledError):
        write(out, work=dying_at(2))
    last = b"".join(orjson.dumps(row) + b"\n" for row in rows_of(2))
    partial = out.with_name("rows.jsonl.partial").read_bytes() + last
    write(out)
    return out, partial


def test_the_finished_file_is_in_the_order_of_the_positions(unbroken):
    rows = [orjson.loads(line) for line in unbroken[0].read_bytes().splitlines()]
    assert [row["row"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert rows[5]["text"] == HOSTILE[5]
    assert rows[2]["text"] == HOSTILE[2]


def test_a_lone_surrogate_becomes_the_replacement_character(unbroken):
    assert orjson.loads(unbroken[0].read_bytes().splitlines()[1])["text"] == "\ufffd lone"


def test_nothing_but_the_file_and_its_provenance_is_left_over(unbroken):
    assert sorted(path.name for path in unbroken[0].parent.iterdir()) == ["rows.jsonl", "rows.jsonl.run.json"]


@given(cut=st.integers(0, 10_000), zeros=st.integers(0, 3))
def test_cut_anywhere_a_resumed_run_gives_the_same_bytes(unbroken, tmp_path_factory, cut, zeros):
    finished, partial = unbroken
    out = tmp_path_factory.mktemp("cut") / "rows.jsonl"
    shutil.copy(finished.with_name("rows.jsonl.run.json"), out.with_name("rows.jsonl.run.json"))
    kept = partial[: min(cut, len(partial))]
    out.with_name("rows.jsonl.partial").write_bytes(kept + b"\0" * zeros)
    worked = []
    written = write(out, work=lambda number: worked.append(number) or rows_of(number))
    assert out.read_bytes() == finished.read_bytes()
    whole = [number for number in range(3) if number not in worked]
    assert whole == list(range(len(whole)))
    assert written.resumed == sum(len(UNITS[number]) for number in whole)


@pytest.mark.parametrize("unit", [0, 1, 2])
def test_a_run_that_fails_keeps_every_unit_it_finished(unbroken, tmp_path, unit):
    out = tmp_path / "rows.jsonl"
    with pytest.raises(KilledError):
        write(out, work=dying_at(unit))
    assert not out.exists()
    assert write(out).resumed == sum(len(done) for done in UNITS[:unit])
    assert out.read_bytes() == unbroken[0].read_bytes()


def test_a_finished_file_is_not_worked_on_again(tmp_path):
    out = tmp_path / "rows.jsonl"
    write(out)
    before = out.stat().st_mtime_ns
    written = write_units(out, UNITS, lambda: pytest.fail("started"), fingerprint={"seed": 1})
    assert written.already
    assert out.stat().st_mtime_ns == before


def test_a_kill_between_finishing_and_tidying_up_leaves_a_finished_file(tmp_path):
    out = tmp_path / "rows.jsonl"
    write(out)
    leftover = out.with_name("rows.jsonl.partial")
    leftover.write_bytes(out.read_bytes())
    assert write(out).already
    assert not leftover.exists()


def test_other_settings_are_refused_and_named(tmp_path):
    out = tmp_path / "rows.jsonl"
    write(out, fingerprint={"seed": 1, "prompts_sha256": "a", "device": "cpu"})
    with pytest.raises(DataError) as caught:
        write(out, fingerprint={"seed": 2, "prompts_sha256": "b", "device": "cpu"})
    message = str(caught.value)
    assert "seed was 1, is now 2" in message
    assert "prompts has other content" in message
    assert "device" not in message
    assert "--overwrite" in message


def test_other_settings_are_refused_for_an_unfinished_file_too(tmp_path):
    out = tmp_path / "rows.jsonl"
    with pytest.raises(KilledError):
        write(out, work=dying_at(1))
    with pytest.raises(DataError, match="seed was 1, is now 2"):
        write(out, fingerprint={"seed": 2})


def test_overwrite_begins_again_with_the_new_settings(tmp_path):
    out = tmp_path / "rows.jsonl"
    write(out)
    written = write(out, fingerprint={"seed": 2}, overwrite=True)
    assert (written.resumed, written.already) == (0, False)
    assert write(out, fingerprint={"seed": 2}).already


def test_overwrite_keeps_the_old_file_if_the_work_cannot_start(tmp_path):
    out = tmp_path / "rows.jsonl"
    write(out)
    before = out.read_bytes()

    def start():
        raise KilledError

    with pytest.raises(KilledError):
        write_units(out, UNITS, start, fingerprint={"seed": 2}, overwrite=True)
    assert out.read_bytes() == before


@pytest.mark.parametrize("record", [None, b"{", b"[]", b'{"schema": "other"}'])
def test_a_file_of_unknown_origin_is_never_replaced_unasked(tmp_path, record):
    out = tmp_path / "rows.jsonl"
    out.write_text("mine\n")
    if record is not None:
        out.with_name("rows.jsonl.run.json").write_bytes(record)
    with pytest.raises(DataError, match="says how it was made"):
        write(out)
    assert out.read_text() == "mine\n"
    assert not write(out, overwrite=True).already


def test_two_runs_at_once_are_refused(tmp_path):
    out = tmp_path / "rows.jsonl"

    def work(number):
        with pytest.raises(DataError, match="another process is writing it"):
            write(out)
        return rows_of(number)

    write(out, work=work)
    assert not out.with_name("rows.jsonl.lock").exists()


def test_a_lock_file_that_a_dead_process_left_stops_nobody(tmp_path):
    out = tmp_path / "rows.jsonl"
    out.with_name("rows.jsonl.lock").touch()
    assert write(out).rows == 6


def test_a_folder_is_no_output_file(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        write(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        write(tmp_path / "file" / "rows.jsonl")


def test_what_the_work_raises_is_not_mistaken_for_a_full_disk(tmp_path):
    def work(_):
        raise ConnectionError("server gone")

    with pytest.raises(ConnectionError, match="server gone"):
        write(tmp_path / "rows.jsonl", work=work)
