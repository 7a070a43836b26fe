"""`flipguard plot` draws what runs logged, whatever state they are in, or says in one line why it cannot."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from flipguard.cli import main
from flipguard.curves.draw import COLOURS, _apart, shortened
from flipguard.curves.history import read_runs
from flipguard.curves.plot import MOST_RUNS


@pytest.fixture
def make_run(tmp_path):
    """Writes the folder of a run; the entries are those of its log."""

    def make(name, entries, checkpoint=""):
        folder = tmp_path / name / checkpoint
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": entries}))
        return str(tmp_path / name)

    return make


def log(steps, **offsets):
    metrics = {"flip/rate": 0.1, "kl/ref": 0.2, "rewards/margins": 0.0, "loss": 0.7, **offsets}
    return [{"step": step, **{name: value + step / 100 for name, value in metrics.items()}} for step in steps]


def colours_in(path):
    """Which of the palette's colours a picture really shows, but for the last, which is the text's too."""
    pixels = {
        f"#{red:02X}{green:02X}{blue:02X}" for _, (red, green, blue) in Image.open(path).convert("RGB").getcolors(10**7)
    }
    return [colour for colour in COLOURS[:-1] if colour in pixels]


def plotted(capsys, words):
    assert main(["plot", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_run_is_a_line_of_its_own_colour(tmp_path, make_run, capsys):
    runs = [
        make_run(name, log(range(1, 30), loss=offset)) for name, offset in (("dpo", 0.7), ("kd", 0.4), ("guard", 0.5))
    ]
    done = plotted(capsys, [*runs, "--out", str(tmp_path / "c.png")])
    assert done["runs"] == ["dpo", "kd", "guard"]
    assert done["metrics"] == ["flip/rate", "kl/ref", "rewards/margins", "loss"]
    assert colours_in(tmp_path / "c.png") == list(COLOURS[:3])
    assert Image.open(tmp_path / "c.png").getpixel((0, 0))[:3] == (255, 255, 255)


@pytest.mark.parametrize(
    "entries",
    [
        log([10]),
        [{"step": 1, "loss": float("nan")}, *log([2, 3])],
        [{"step": 1, "loss": float("nan")}],
        [{"step": 1, "loss": 0.5}, {"step": 2, "loss": float("inf")}, {"step": 3, "loss": 0.5}],
        [{"step": 5, "eval_loss": 0.3}],
        [*log([1, 2, 3, 4]), {"step": 4, "eval_flip/rate": 0.2, "eval_loss": 0.3}],
        [{"step": 1, "loss": 1e300}, {"step": 2, "loss": -1e300}],
        [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.5}],
    ],
    ids=[
        "one step",
        "starts with NaN",
        "only NaN",
        "infinity",
        "only evaluation",
        "evaluation too",
        "huge",
        "constant",
    ],
)
def test_whatever_was_logged_can_be_drawn(tmp_path, make_run, capsys, entries):
    out = tmp_path / "c.png"
    plotted(capsys, [make_run("odd", entries), make_run("usual", log(range(1, 9))), "--out", str(out)])
    with Image.open(out) as picture:
        picture.load()
    assert picture.width > 800


def test_values_that_are_not_finite_are_told(tmp_path, make_run, capsys):
    run = make_run("nan", [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": 1.0}])
    assert main(["plot", run, "--out", str(tmp_path / "c.png")]) == 0
    assert "1 values are not finite" in capsys.readouterr().out


def test_a_run_without_flips_stands_beside_one_with_them(tmp_path, make_run, capsys):
    runs = [make_run("sft", [{"step": 1, "loss": 1.0}, {"step": 90, "loss": 0.5}]), make_run("dpo", log([1, 2]))]
    done = plotted(capsys, [*runs, "--out", str(tmp_path / "c.png")])
    assert done["metrics"] == ["flip/rate", "kl/ref", "rewards/margins", "loss"]


def test_a_resumed_run_counts_its_last_word_on_a_step(make_run, tmp_path):
    entries = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 9.0}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 3.0}]
    make_run("resumed", entries)
    (run,) = read_runs([tmp_path / "resumed"])
    assert run.metrics["loss"] == {1: 1.0, 2: 2.0, 3: 3.0}


def test_the_last_checkpoint_speaks_for_a_run_without_a_state_of_its_own(make_run, tmp_path):
    for step in (20, 100, 3):
        make_run("killed", log([step]), f"checkpoint-{step}")
    make_run("killed", log([999]), "checkpoint-best")
    (run,) = read_runs([tmp_path / "killed"])
    assert run.name == "killed"
    assert list(run.metrics["loss"]) == [100]
    assert read_runs([tmp_path / "killed" / "checkpoint-20"])[0].name == "killed"


def test_runs_of_one_name_are_told_apart_by_their_parents(make_run, tmp_path):
    for name in ("a/dpo", "b/dpo", "b/kd"):
        make_run(name, log([1]))
    runs = read_runs([tmp_path / "a/dpo", tmp_path / "b/dpo", tmp_path / "b/kd" / "trainer_state.json"])
    assert [run.name for run in runs] == ["a/dpo", "b/dpo", "b/kd"]


@pytest.mark.parametrize("name", ["$x_$", "名前", "a\\frac{b", "_hidden", "very" * 20])
def test_a_run_may_be_called_anything(name, make_run, tmp_path, capsys):
    assert plotted(capsys, [make_run(name, log([1, 2])), "--out", str(tmp_path / "c.png")])["runs"] == [name]


def test_named_metrics_are_drawn_in_their_order(tmp_path, make_run, capsys):
    words = ["--metrics", "loss", "grad_norm", "--out", str(tmp_path / "c.png")]
    assert plotted(capsys, [make_run("a", log([1, 2], grad_norm=3)), *words])["metrics"] == ["loss", "grad_norm"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "has no list 'log_history'"),
        ('{"log_history": 3}', "has no list 'log_history'"),
        ('{"log_history": [3]}', "an entry of 'log_history' has no step: 3."),
        ('{"log_history": [{"loss": 1}]}', "has no step"),
        ('{"log_history": [{"step": "1", "loss": 1}]}', "has no step"),
        ('{"log_history": []}', "nothing was logged yet"),
        ('{"log_history": [{"step": 1, "loss": "low"}]}', "nothing was logged yet"),
        (
            '{"log_history": [{"step": 1, "speed": 1}]}',
            "none of the usual metrics was logged. Name some with --metrics: speed.",
        ),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, capsys, content, message):
    (tmp_path / "trainer_state.json").write_text(content)
    assert main(["plot", str(tmp_path), "--out", str(tmp_path / "c.png")]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.count("\n") == 1
    assert not (tmp_path / "c.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--out", "c.png"], "nowhere: no such run."),
        ([".", "--out", "c.png"], ".: holds no trainer_state.json, nor does a checkpoint in it."),
        (["run", "--out", "c.gif"], "c.gif: the picture is a PNG. Let --out end in .png."),
        (["run", "--out", "c"], "c: the picture is a PNG."),
        (["run", "run/", "--out", "c.png"], "run: is the same run as another one. Name it once."),
        (["run", "--metrics", "los", "--out", "c.png"], "no run has logged 'los'. Did you mean 'loss'?"),
        (["run"] * (MOST_RUNS + 1) + ["--out", "c.png"], "9 runs: more than 8 lines cannot be told apart."),
    ],
)
def test_a_wrong_command_is_one_line(tmp_path, monkeypatch, make_run, capsys, words, message):
    make_run("run", log([1]))
    monkeypatch.chdir(tmp_path)
    assert main(["plot", *words]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.count("\n") == 1


def test_without_matplotlib_it_says_what_to_install(tmp_path, make_run):
    run = make_run("run", log([1]))
    code = "import sys; sys.modules['matplotlib'] = None; from flipguard.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["plot", run, "--out", str(tmp_path / "c.png")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (
        done.stderr
        == "flipguard plot: needs the package 'matplotlib'. Install it with: pip install 'flipguard[plot]'\n"
    )


def test_labels_keep_their_order_and_their_distance():
    heights = _apart([0.1, 0.11, 0.12, 0.9], 0.1)
    assert heights == sorted(heights)
    assert heights == pytest.approx([0.01, 0.11, 0.21, 0.9])
    assert all(
        second - first > 0.0999
        for first, second in zip(_apart([0.5] * 8, 0.1), _apart([0.5] * 8, 0.1)[1:], strict=False)
    )


def test_a_long_name_keeps_its_ends():
    assert shortened("a" * 30 + "-seed-1").endswith("-seed-1")
    assert len(shortened("a" * 300)) <= 22
