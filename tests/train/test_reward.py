"""Reward modelling from recipe to scores."""

import json
import math
import shutil

import pytest
import torch

from flipguard.errors import RecipeError
from flipguard.objective.reward import bradley_terry
from flipguard.rewards.opening import open_reward
from flipguard.rewards.spec import RewardSpec
from flipguard.train.data import TokenData, TokenRow
from flipguard.train.reward import held_out_metrics, padding_token
from flipguard.train.run import train


def history(folder):
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


def scores(folder, rows, side):
    return open_reward(RewardSpec(path=str(folder)), "--model").function(
        [row["prompt"] for row in rows], [row[side] for row in rows]
    )


def margins_of(folder, path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    pairs = zip(scores(folder, rows, "chosen"), scores(folder, rows, "rejected"), strict=True)
    return torch.tensor([chosen - rejected for chosen, rejected in pairs], dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("peft", [None, {"r": 2, "lora_alpha": 4, "target_modules": "all-linear"}])
def test_what_training_reports_is_what_the_saved_model_scores(make_recipe, make_pairs, tmp_path, peft):
    """13 held-out pairs in batches of 8: the last batch must not weigh more. Scores come through another room."""
    make_pairs(tmp_path / "held_out.jsonl", 13, seed=1)
    recipe = make_recipe(
        "reward",
        algorithm="reward",
        data={"train": "pairs.jsonl", "eval": "held_out.jsonl"},
        peft=peft,
        trainer={
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 8,
            "num_train_epochs": 4,
            "use_cpu": True,
            "eval_strategy": "steps",
            "eval_steps": 24,
        },
    )
    trained = train(recipe)
    steps = [entry for entry in history(trained.path) if "loss" in entry]
    assert steps[-1]["loss"] < steps[0]["loss"]
    (held_out,) = [entry for entry in history(trained.path) if "eval_loss" in entry]
    margins = margins_of(trained.path, tmp_path / "held_out.jsonl")
    expected = held_out_metrics(margins)
    assert {name: held_out[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    assert expected["eval_nll"] == pytest.approx(bradley_terry(margins, torch.zeros_like(margins)).mean().item())
    assert "A reward model" in (trained.path / "README.md").read_text()


@pytest.mark.slow
def test_texts_are_scored_in_the_form_they_were_trained_in(make_recipe, tmp_path):
    rows = [{"prompt": f"w{at} ", "chosen": "w1 w2", "rejected": "w3"} for at in range(30)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trained = train(make_recipe("reward", algorithm="reward"))
    encode = open_reward(RewardSpec(path=str(trained.path)), "--model").function.encode
    assert "flipguard_form" in (trained.path / "tokenizer_config.json").read_text()
    assert encode("w1 ", "w2").ids == [6, 7, 1]
    assert margins_of(trained.path, tmp_path / "pairs.jsonl").min() > 0


@pytest.mark.slow
def test_training_resumes_to_the_same_weights(make_recipe):
    trainer = {"learning_rate": 1e-2, "per_device_train_batch_size": 8, "max_steps": 6, "use_cpu": True}
    whole = train(make_recipe("whole", algorithm="reward", trainer=trainer))
    part = make_recipe("part", algorithm="reward", trainer=trainer | {"save_strategy": "steps", "save_steps": 3})
    broken = train(part)
    (broken.path / "flipguard.json").write_text(
        json.dumps(json.loads((broken.path / "flipguard.json").read_text()) | {"finished": False})
    )
    for name in ("model.safetensors", "checkpoint-6"):
        path = broken.path / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    again = train(part, resume=True)
    files = [(run.path / "model.safetensors").read_bytes() for run in (whole, again)]
    assert files[0] == files[1]


@pytest.mark.parametrize("section", [{"constraint": {"gamma": 1}}, {"loss": {"beta": 1}}, {"reference": "m"}])
def test_what_only_alignment_knows_has_no_place_in_the_recipe(make_recipe, section):
    with pytest.raises(RecipeError, match="has no meaning for 'reward'"):
        train(make_recipe("reward", algorithm="reward", **section))


class Tokens:
    pad_token_id, eos_token_id, pad_token = 1, 1, "</s>"

    def __init__(self):
        self.added_tokens_decoder = {0: "<pad>", 1: "</s>", 2: "<unk>"}

    def convert_ids_to_tokens(self, number):
        return f"#{number}"

    def __len__(self):
        return 5


@pytest.mark.parametrize(("used", "padding"), [([3], "#0"), ([0, 3], "#2"), ([0, 2, 3], "#4")])
def test_where_padding_is_the_end_token_one_that_no_row_holds_takes_its_place(used, padding):
    data = TokenData([TokenRow("row", used, ([1], [1, 1]))])
    assert padding_token(Tokens(), [data]) == padding


def test_metrics_of_nothing_learnt():
    assert held_out_metrics(torch.zeros(4)) == pytest.approx(
        {"eval_accuracy": 0.5, "eval_margin": 0.0, "eval_nll": math.log(2), "eval_calibration_error": 0.0}
    )
