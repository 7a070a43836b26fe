"""Every algorithm under every gate takes a step on a real model: a finite loss, a gradient, other weights."""

from typing import get_args

import pytest
import torch

from flipguard.objective.preference import PREFERENCE_LOSSES
from flipguard.train.arguments import training_arguments
from flipguard.train.batches import PairCollator, Pairs
from flipguard.train.constraintspec import ConstraintSpec, Gate
from flipguard.train.data import load_pairs, load_unpaired
from flipguard.train.guarded_loss import guarded_loss
from flipguard.train.models import load_model
from flipguard.train.offline import OfflineTrainer
from flipguard.train.recipe import DataSpec, ModelSpec, Recipe
from flipguard.train.reference import with_reference
from flipguard.train.scoring import scorer_for
from flipguard.train.unpaired import UnpairedCollator, with_mismatched

pytestmark = pytest.mark.slow

every_algorithm = pytest.mark.parametrize("algorithm", PREFERENCE_LOSSES)
every_gate = pytest.mark.parametrize("gate", get_args(Gate))


@pytest.fixture(scope="module")
def parts(tmp_path_factory, model_folder, make_pairs, tokenizer):
    """The model, and rows with what it says of them before it moves, for pairs and for single completions."""
    folder = tmp_path_factory.mktemp("every")
    source = str(make_pairs(folder / "pairs.jsonl", count=6))
    model, collator = load_model(ModelSpec(path=str(model_folder))), PairCollator(tokenizer.pad_token_id)
    spec = DataSpec(train=source)
    pairs = load_pairs(source, spec, tokenizer, None).rows
    singles = with_mismatched(load_unpaired(source, spec, tokenizer, None).rows, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLIPGUARD_CACHE", str(folder / "cache"))
        rows = [with_reference(model, part, collator, mixed=None, by_token=True) for part in (pairs, singles)]
    return model, collator, rows, {name: weight.clone() for name, weight in model.state_dict().items()}


@every_gate
@every_algorithm
def test_every_algorithm_takes_a_step_under_every_gate(tmp_path, parts, algorithm, gate):
    model, collator, (pairs, singles), start = parts
    model.load_state_dict(start)
    unpaired = PREFERENCE_LOSSES[algorithm].unpaired
    constraint = ConstraintSpec(gate=gate, gamma=1.0, weights=(0.1, 1.0) if gate == "soft" else None)
    trainer = {"output_dir": str(tmp_path), "learning_rate": 0.01, "max_steps": 2, "use_cpu": True}
    recipe = Recipe(algorithm, ModelSpec("m"), DataSpec("d"), constraint=constraint, trainer=trainer)
    objective = guarded_loss(recipe, place="r.yaml", precision=torch.float32)
    trainer = OfflineTrainer(
        guarded_loss=objective,
        scorer=scorer_for(model),
        model=model,
        args=training_arguments(recipe, place="r.yaml"),
        train_dataset=Pairs(singles if unpaired else pairs),
        eval_dataset=None,
        data_collator=UnpairedCollator(collator) if unpaired else collator,
        callbacks=[objective.guard.strength],
    )
    trainer.train()
    first, second = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert first["flip/rate"] == 0.0
    assert first["flip/gamma"] == (0.0 if gate == "off" else 1.0)
    assert (first["flip/constraint_loss"] > 0) == (gate in ("always", "soft"))
    assert all(torch.isfinite(torch.tensor(value)) for value in second.values() if isinstance(value, float))
    assert any((weight != start[name]).any() for name, weight in model.state_dict().items())
