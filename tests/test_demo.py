"""The demo in small: the same steps on an eighth of the world, broken off once, then run again."""

import json

import pytest

from flipguard import demo
from flipguard.cli import main
from flipguard.sandbox import write
from flipguard.train.recipe import load_recipe

pytestmark = pytest.mark.slow


@pytest.fixture
def small_world(monkeypatch):
    for name, share in (("SFT", 8), ("PREFERENCE", 8), ("REWARD", 8), ("TEST", 10), ("VALIDATION", 10)):
        counts = {kind: max(1, count // share) for kind, count in getattr(write, name).items()}
        monkeypatch.setattr(write, name, counts)


@pytest.mark.usefixtures("small_world")
def test_a_demo_that_was_broken_off_goes_on_and_ends_in_table_and_report(tmp_path, monkeypatch):
    monkeypatch.setenv("FLIPGUARD_CACHE", str(tmp_path / "cache"))
    write_overview = demo._write_overview
    monkeypatch.setattr(demo, "_compare", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(tmp_path / "demo", seed=3)
    monkeypatch.undo()
    monkeypatch.setenv("FLIPGUARD_CACHE", str(tmp_path / "cache"))
    assert write_overview is demo._write_overview
    weights = tmp_path / "demo" / "runs" / "dpo" / "model.safetensors"
    trained = weights.stat().st_mtime_ns
    monkeypatch.setattr(demo, "write_sandbox", lambda *_, **__: None)  # the small world is there already
    done = demo.run_demo(tmp_path / "demo", seed=3)
    assert weights.stat().st_mtime_ns == trained, "what was finished is not done again"

    text = demo.summary(done)
    assert max(map(len, text.splitlines()[:-1])) <= 80
    assert all(method in text for method in ("DPO ", "DPO+KD", "DPO+FlipGuard", "McNemar p ="))
    told = demo.to_json(done)
    assert set(told["tests"]) == {"DPO+FlipGuard against DPO", "DPO+FlipGuard against DPO+KD"}
    assert json.dumps(told, default=str)
    page = done.report.read_text(encoding="utf-8")
    for recipe in ("dpo", "dpo_kd", "dpo_flipguard"):
        assert f"{recipe}/report.html" in page
        assert (done.report.parent / recipe / "report.html").exists()
    runs = [str(tmp_path / "demo" / "runs" / recipe) for recipe in ("sft", "dpo", "dpo_flipguard")]
    assert main(["plot", *runs, "--out", str(tmp_path / "curves.png")]) == 0
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_what_the_demo_can_align_with_is_offered_and_has_recipes(capsys):
    for name, methods in demo.METHODS.items():
        assert {recipe for _, recipe in methods} <= set(write.RECIPES)
        assert {recipe.partition("_")[0] for _, recipe in methods} == {name}
    with pytest.raises(SystemExit):
        main(["demo", "--algorithms", "dop"])
    said = capsys.readouterr().err
    assert all(f"'{name}'" in said for name in demo.METHODS)


@pytest.mark.usefixtures("small_world")
def test_every_recipe_of_the_sandbox_is_a_recipe(tmp_path):
    write.write_sandbox(tmp_path / "world", seed=0)
    gates = {"kd": "always", "flipguard": "flip"}
    for name in write.RECIPES:
        recipe = load_recipe(tmp_path / "world" / "recipes" / f"{name}.yaml")
        assert recipe.algorithm == name.partition("_")[0].replace("trunk", "sft")
        assert recipe.algorithm in ("sft", "reward") or recipe.constraint.gate == gates.get(
            name.partition("_")[2], "off"
        )
