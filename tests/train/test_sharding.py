"""The loss is a mean over the pairs of an optimizer step, however these are cut into batches."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from flipguard.train.batches import PairCollator, ReferencedPair, in_slices
from flipguard.train.data import TokenRow
from flipguard.train.run import train
from flipguard.train.sharding import COUNTED, SLICES, CountingCollator, Fillable, Filled

PAIRS = 10  # so that the last step has fewer pairs, and the last batch of it fewer still
PLAIN = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0, "lr_scheduler_type": "constant", "use_cpu": True}
GUARD = {"gamma": 0.5, "gate": "flip"}


@pytest.fixture
def other(tmp_path, model_folder):
    """A reference that is not the policy, so that pairs flip from the first step on."""
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    torch.manual_seed(5)
    for weight in model.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    model.save_pretrained(tmp_path / "other")
    return str(tmp_path / "other")


@pytest.fixture
def run(tmp_path, make_recipe, make_pairs, other):
    make_pairs(tmp_path / "pairs.jsonl", count=PAIRS)

    def trained(name, batch, accumulation, **trainer):
        cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        recipe = make_recipe(
            name, reference=other, constraint=GUARD, trainer=PLAIN | {"num_train_epochs": 2} | cut | trainer
        )
        return train(recipe)

    return trained


def history(folder):
    entries = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [{key: entry[key] for key in entry if "/" in key or key == "loss"} for entry in entries if "loss" in entry]


def distance(left, right):
    return max((left[name] - right[name]).abs().max().item() for name in left)


@pytest.mark.slow
def test_weights_and_metrics_do_not_depend_on_how_a_step_is_cut_into_batches(run):
    """Steps of 6 and 4 pairs; as 3 + 3 and 3 + 1, and as 2 + 2 + 2 and 2 + 2."""
    whole = run("whole", 6, 1)
    steps, weights = history(whole.path), load_file(whole.path / "model.safetensors")
    assert len(steps) == 4
    assert max(step["flip/constraint_loss"] for step in steps) > 0
    for batch, accumulation in ((3, 2), (2, 3)):
        cut = run(f"cut{batch}", batch, accumulation)
        assert distance(weights, load_file(cut.path / "model.safetensors")) < 1e-6
        for step, same in zip(steps, history(cut.path), strict=True):
            assert step == pytest.approx(same, abs=1e-5)
    others = run("others", 4, 1)
    assert distance(weights, load_file(others.path / "model.safetensors")) > 1e-3, "the comparison cannot tell"


def by_hand(model, ref, pairs):
    """Eq. 11 pair by pair, from the logits of the whole vocabulary."""

    def logp(of, prompt, completion):
        ids = torch.tensor([[*prompt, *completion]])
        logps = of(ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])
        return logps[-len(completion) :].sum()

    total = 0.0
    for pair in pairs:
        policy = [logp(model, pair.prompt, completion) for completion in pair.completions]
        with torch.no_grad():
            known = [logp(ref, pair.prompt, completion) for completion in pair.completions]
        margin = (policy[0] - known[0]) - (policy[1] - known[1])
        guard = 0.5 * -policy[0] if known[0] - policy[0] > 1e-4 else 0.0
        total = total - torch.nn.functional.logsigmoid(0.1 * margin) + guard
    return total / len(pairs)


@pytest.mark.slow
def test_a_step_is_one_of_the_hand_computed_gradient(run, model_folder, other, monkeypatch):
    """Three micro-batches of 4, 4 and 2 pairs: neither their number nor their sizes weigh anything."""
    seen = []
    collate = PairCollator.__call__

    def spied(self, rows):
        seen.append([row.tokens for row in rows])
        return collate(self, rows)

    monkeypatch.setattr(PairCollator, "__call__", spied)
    trained = run("stepped", 4, 3, max_steps=1)
    assert [len(pairs) for pairs in seen] == [4, 4, 2]
    model, ref = (LlamaForCausalLM.from_pretrained(folder) for folder in (model_folder, other))
    losses = [by_hand(model, ref, pairs) * len(pairs) / 10 for pairs in seen]
    sum(losses).backward()
    assert history(trained.path)[0]["loss"] == pytest.approx(sum(losses).item(), abs=1e-5)
    after = load_file(trained.path / "model.safetensors")
    expected = {name: weight.data - 0.1 * weight.grad for name, weight in model.named_parameters()}
    assert max(weight.grad.abs().max().item() for weight in model.parameters()) > 0.1
    assert distance({name: expected[name] for name in after}, after) < 2e-6


@pytest.mark.slow
def test_the_evaluation_weighs_pairs_alike(make_recipe, make_pairs, tmp_path, other):
    make_pairs(tmp_path / "held_out.jsonl", count=7, seed=3)
    told = []
    for size in (1, 4, 7):
        trainer = PLAIN | {"max_steps": 1, "per_device_eval_batch_size": size, "eval_strategy": "steps"}
        data = {"train": "pairs.jsonl", "eval": "held_out.jsonl"}
        metrics = train(make_recipe(f"e{size}", data=data, reference=other, trainer=trainer)).metrics
        told.append({name: value for name, value in metrics.items() if name.startswith("eval_")})
    assert told[0] == pytest.approx(told[1], abs=1e-5)
    assert told[0] == pytest.approx(told[2], abs=1e-5)


@pytest.mark.parametrize(("rows", "multiple", "filled"), [(10, 4, 12), (8, 4, 8), (1, 6, 6)])
def test_an_epoch_is_filled_up_with_rows_that_do_not_count(rows, multiple, filled):
    indices = list(Filled(range(rows), multiple))
    assert len(indices) == len(Filled(range(rows), multiple)) == filled
    data = Fillable([f"row {number}" for number in range(rows)])
    assert [counts for _, counts in map(data.__getitem__, indices)] == [True] * rows + [False] * (filled - rows)


def test_a_batch_holds_what_counts_or_one_row_that_does_not():
    batch = CountingCollator(lambda rows: {"rows": torch.tensor(rows)})
    assert {name: tensor.tolist() for name, tensor in batch([(5, True), (6, True), (7, False)]).items()} == {
        "rows": [5, 6],
        COUNTED: [2],
    }
    assert {name: tensor.tolist() for name, tensor in batch([(7, False), (7, False)]).items()} == {
        "rows": [7],
        COUNTED: [0],
    }


def test_a_batch_in_slices_says_of_each_how_many_count():
    batch = CountingCollator(lambda rows: {"rows": torch.tensor(rows)}, lambda rows: [rows[:2], rows[2:]])
    made = batch([(5, True), (6, True), (7, True), (8, False)])
    assert made[COUNTED].tolist() == [3]
    assert [(part["rows"].tolist(), part[COUNTED].tolist()) for part in made[SLICES]] == [([5, 6], [2]), ([7], [1])]


def test_slices_hold_every_row_once_and_no_more_tokens_than_asked_unless_a_row_is_longer():
    sizes = [3, 9, 30, 1, 12, 7, 7, 20, 2]
    rows = [ReferencedPair(TokenRow("", [0] * (size - 2), ([1], [2])), float(size), 0.0) for size in sizes if size > 1]
    for most in (1, 10, 21, 1000):
        slices = in_slices(rows, most)
        assert sorted(row.ref_chosen for part in slices for row in part) == sorted(size for size in sizes if size > 1)
        assert all(len(part) == 1 or sum(row.ref_chosen for row in part) <= most for part in slices)
    assert [[row.ref_chosen for row in part] for part in in_slices(rows, 21)] == [[30], [20], [12, 9], [7, 7, 3, 2]]
