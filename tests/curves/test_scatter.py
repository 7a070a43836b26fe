"""`flipguard plot --scatter` draws judgments, and counts as `flipguard compare` does."""

import json
from pathlib import Path

import pytest
from PIL import Image

from flipguard.cli import main
from flipguard.curves.draw import COLOURS
from flipguard.evaluate.compare import Options, compare_files
from flipguard.files import write_jsonl

BETTER, WORSE = COLOURS[:2]


def judged(number, old, new, said=("a", "b")):
    sides = {"old": {"completion": said[0], "score": old}, "new": {"completion": said[1], "score": new}}
    return {"id": number, "judge": "j", **sides}


@pytest.fixture
def judgments(tmp_path):
    def write(name, rows):
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
        return str(tmp_path / f"{name}.jsonl")

    return write


def scattered(tmp_path, capsys, *words):
    assert main(["plot", "--scatter", *words, "--out", str(tmp_path / "s.png"), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["panels"]


def marked(path, colour):
    """How many pixels show the colour through which white shines, as marks have it and words do not."""
    wanted = [0.6 * int(colour[at : at + 2], 16) + 0.4 * 255 for at in (1, 3, 5)]
    with Image.open(path) as picture:
        pixels = picture.convert("RGB").getcolors(10**7)
    return sum(n for n, seen in pixels if all(abs(a - b) < 3 for a, b in zip(seen, wanted, strict=True)))


def test_the_share_below_the_diagonal_is_the_nfr_of_compare(tmp_path, judgments, capsys):
    scores = [(n / 7 % 1, n * n / 11 % 1) for n in range(200)]
    rows = [judged(n, old, new) for n, (old, new) in enumerate(scores)]
    rows += [judged(200, 0.9, 0.1, ("same", "same")), judged(201, None, 1.0), judged(202, 0.3, 0.2)]
    path = judgments("dpo", rows)
    (panel,) = scattered(tmp_path, capsys, path, "--margin", "0.1")
    expected = compare_files(Path(path), None, Options(margin=0.1, max_invalid=1.0)).comparison
    assert (panel["n"], panel["negative_flips"]) == (expected.n, expected.negative_flips)
    assert panel["nfr"] == pytest.approx(expected.nfr.value)
    assert (panel["name"], panel["invalid"]) == ("dpo", 1)


def test_worse_and_better_prompts_have_colours_of_their_own_and_each_file_a_square(tmp_path, judgments, capsys):
    worse = judgments("worse", [judged(n, 1.0, 0.0) for n in range(50)])
    better = judgments("better", [judged(n, 0.0, 1.0) for n in range(50)])
    sizes = []
    for files, colours in (([worse], {WORSE}), ([better], {BETTER}), ([worse, better], {WORSE, BETTER})):
        scattered(tmp_path, capsys, *files)
        with Image.open(tmp_path / "s.png") as picture:
            sizes.append(picture.size)
        marks = {colour: marked(tmp_path / "s.png", colour) for colour in (WORSE, BETTER)}
        assert {colour for colour, count in marks.items() if count > 500} == colours, marks
    assert sizes[0] == sizes[1] < sizes[2]


@pytest.mark.parametrize("scores", [[(0.5, 0.5)], [(1e300, -1e300)], [(-3.0, 2.5)] * 3, [(0.0, 0.0), (0.0, 1e-9)]])
def test_whatever_was_scored_can_be_drawn(tmp_path, judgments, capsys, scores):
    path = judgments("$x_$ 名前", [judged(n, *pair) for n, pair in enumerate(scores)])
    assert scattered(tmp_path, capsys, path)[0]["n"] == len(scores)


@pytest.mark.parametrize(
    ("rows", "words", "says"),
    [
        ([{"id": 1, "judge": "j", "old": {}, "new": {}, "verdicts": []}], [], "s.jsonl:1: no scores of both sides"),
        ([{"id": 1, "score": 1.0}], [], "s.jsonl:1: no scores of both sides"),
        ([judged(1, None, 1.0)], [], "not one pair has two scores"),
        ([judged(1, 0.0, 1.0)], ["--margin", "-1"], "--margin: -1.0 is not possible"),
        ([judged(1, 0.0, 1.0)], ["--out", "s.svg"], "Let --out end in .png"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(tmp_path, judgments, capsys, rows, words, says):
    assert main(["plot", "--scatter", judgments("s", rows), "--out", str(tmp_path / "s.png"), *words]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_a_file_that_is_named_twice_is_an_error(tmp_path, judgments, capsys):
    path = judgments("s", [judged(1, 0.0, 1.0)])
    assert main(["plot", "--scatter", path, path, "--out", str(tmp_path / "s.png")]) == 2
    assert "is named twice" in capsys.readouterr().err
