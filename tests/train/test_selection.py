"""Which checkpoint is kept: the one that breaks least among those that win often enough."""

import json
import shutil
import sys
from collections import Counter

import pytest
from safetensors.torch import load_file

from flipguard.errors import FlipGuardError
from flipguard.train.run import train
from flipguard.train.selection import NOT_ENOUGH, NOTHING_GRADED, rates

SCORER = '''
def length(prompts, completions, **columns):
    """Longer answers are better; the empty one cannot be graded."""
    return [float(len(c.split())) or None for c in completions]
'''


def test_fewer_flips_are_better_and_more_wins_decide_between_equals():
    better = [
        Counter(negative_flip=0, positive_flip=9, tie=1),
        Counter(negative_flip=0, positive_flip=3, tie=7),
        Counter(negative_flip=1, positive_flip=9),
        Counter(negative_flip=7, positive_flip=3),
        Counter(negative_flip=0, positive_flip=1, tie=9),  # below the floor, whatever it breaks
        Counter(tie=10),
        Counter(invalid=10),
    ]
    values = [rates(outcomes, 0.2)["eval_selection"] for outcomes in better]
    assert values == sorted(values)
    assert len(set(values)) == len(values)
    assert [value >= NOT_ENOUGH for value in values] == [False] * 4 + [True] * 3
    assert values[-1] == NOTHING_GRADED


@pytest.fixture
def selecting(make_recipe, make_pairs, tmp_path, monkeypatch):
    (tmp_path / "scorers_of_selection.py").write_text(SCORER)
    monkeypatch.delitem(sys.modules, "scorers_of_selection", raising=False)  # that of another test's folder
    monkeypatch.syspath_prepend(tmp_path)
    make_pairs(tmp_path / "held_out.jsonl", count=8, seed=1)
    prompts = [{"id": number, "prompt": f"w{number} w1"} for number in range(11)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))

    def write(name="chosen", *, trainer=None, **select):
        section = {"prompts": "prompts.jsonl", "scorer": "scorers_of_selection:length", "max_new_tokens": 12} | select
        steps = {"eval_strategy": "steps", "eval_steps": 2, "max_steps": 12, "learning_rate": 3e-2, "use_cpu": True}
        data = {"train": "pairs.jsonl", "eval": "held_out.jsonl"}
        return make_recipe(name, data=data, select=section, trainer=steps | (trainer or {}))

    return write


@pytest.mark.slow
def test_the_model_is_the_best_checkpoint_and_its_card_says_why(selecting):
    trained = train(selecting(trainer={"save_total_limit": 20}))
    state = json.loads((trained.path / "trainer_state.json").read_text())
    seen = [entry for entry in state["log_history"] if "eval_nfr" in entry]
    assert [entry["step"] for entry in seen] == [2, 4, 6, 8, 10, 12]
    best = min(seen, key=lambda entry: (entry["eval_nfr"], -entry["eval_win_rate"]))
    assert state["best_global_step"] == best["step"] != 12, "another one than the last, or nothing is tested"
    kept = load_file(trained.path / "model.safetensors")
    there = load_file(trained.path / f"checkpoint-{best['step']}" / "model.safetensors")
    assert all((kept[name] == there[name]).all() for name in kept)
    card = (trained.path / "README.md").read_text()
    assert f"The checkpoint of step {best['step']}: negative flip rate {best['eval_nfr']:.4g}" in card


@pytest.mark.slow
def test_flips_are_those_that_generate_judge_and_compare_find(selecting, model_folder, tmp_path):
    from flipguard.cli import main

    trained = train(selecting())
    where = {name: str(tmp_path / f"{name}.jsonl") for name in ("prompts", "old", "new", "judged")}
    for name, model in (("old", model_folder), ("new", trained.path)):
        words = ["generate", "--model", str(model), "--prompts", where["prompts"], "--out", where[name]]
        assert main([*words, "--max-new-tokens", "12", "--dtype", "float32", "--device", "cpu"]) == 0
    words = ["judge", "--judge", "scorers_of_selection:length", "--old", where["old"], "--new", where["new"]]
    assert main([*words, "--out", where["judged"]]) == 0
    main(["compare", where["judged"], "--margin", "0", "--out", str(tmp_path / "report"), "--max-invalid", "1"])
    found = json.loads((tmp_path / "report" / "comparison.json").read_text())
    state = json.loads((trained.path / "trainer_state.json").read_text())
    best = next(e for e in state["log_history"] if e["step"] == state["best_global_step"] and "eval_nfr" in e)
    assert (best["eval_nfr"], best["eval_win_rate"], best["eval_graded"]) == pytest.approx(
        (found["nfr"]["value"], found["win_rate"]["value"], found["n"])
    )
    assert found["negative_flips"] + found["positive_flips"] > 0


@pytest.mark.slow
def test_a_floor_that_nothing_reaches_is_said(selecting):
    card = (train(selecting(min_win_rate=1.0)).path / "README.md").read_text()
    assert "No checkpoint won as often as the floor of 1; this one came nearest." in card


@pytest.mark.slow
@pytest.mark.parametrize(
    ("select", "says"),
    [
        ({"prompts": "none.jsonl"}, "no such file"),
        ({"scorer": "scorers_of_selection:nothing"}, "nothing"),
        ({"min_win_rate": 2}, "min_win_rate: 2 is not possible"),
        ({"floor": 0.1}, "unknown key 'floor'"),
    ],
)
def test_what_cannot_be_selected_by_is_one_line(selecting, select, says):
    with pytest.raises(FlipGuardError, match=says):
        train(selecting(**select))


@pytest.mark.slow
def test_selecting_needs_an_evaluation(selecting, tmp_path):
    recipe = json.loads(selecting().read_text())
    del recipe["data"]["eval"]
    path = tmp_path / "without.yaml"
    path.write_text(json.dumps(recipe))
    with pytest.raises(
        FlipGuardError, match=r"select: chooses at each evaluation, so there must be one; set data\.eval"
    ):
        train(path)
    for key, says in (("eval_strategy", "leaves 'select' nothing"), ("save_strategy", "saves at each evaluation")):
        with pytest.raises(FlipGuardError, match=rf"trainer\.{key}: .*{says}"):
            train(selecting(trainer={key: "no"}))
    path.write_text(json.dumps(recipe | {"algorithm": "sft"}))
    with pytest.raises(FlipGuardError, match="select: has no meaning for 'sft'"):
        train(path)


def test_shared_out_weights_are_not_asked_and_loaded_everywhere(selecting, make_recipe, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(FlipGuardError, match=r"select: cannot ask a model whose weights are shared out\. Use DDP"):
        train(selecting())
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    with pytest.raises(FlipGuardError, match="Set fsdp_cpu_ram_efficient_loading: false"):
        train(make_recipe())


@pytest.mark.slow
def test_a_run_that_goes_on_keeps_the_checkpoint_an_unbroken_one_keeps(selecting):
    recipe = selecting(trainer={"save_total_limit": 20})
    folder = train(recipe).path
    before, told = load_file(folder / "model.safetensors"), (folder / "README.md").read_text()
    for step in (8, 10, 12):
        shutil.rmtree(folder / f"checkpoint-{step}")
    record = json.loads((folder / "flipguard.json").read_text())
    (folder / "flipguard.json").write_text(json.dumps(record | {"finished": False}))
    after = load_file(train(recipe, resume=True).path / "model.safetensors")
    assert all((before[name] == after[name]).all() for name in before)
    said = next(line for line in told.splitlines() if line.startswith("The checkpoint of step"))
    assert said in (folder / "README.md").read_text()
