"""The guarded KTO trainer is TRL's loss plus the term of Eq. 11, by hand, on the rows whose label is True."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import KTOTrainer

from flipguard.errors import DataError
from flipguard.integrations.trl import GuardedKTOConfig, GuardedKTOTrainer

pytestmark = [
    pytest.mark.slow,
    # transformers 5.23 renames what TRL's own code still reads and sets: it becomes activation_checkpointing
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
]


@pytest.fixture
def make_trainer(tmp_path, make_model, tokenizer, rows, arguments):
    def make(
        *, cls=GuardedKTOTrainer, peft=None, ref_model=None, labels=(True, False, True), evaluate=False, **options
    ):
        data = Dataset.from_list(
            [
                {"prompt": row["prompt"], "completion": row["chosen"], "label": labels[number % len(labels)]}
                for number, row in enumerate(rows)
            ]
        )
        return cls(
            make_model(),
            ref_model,
            args=GuardedKTOConfig(str(tmp_path / "run"), **{**arguments, **options}),
            train_dataset=data,
            eval_dataset=data if evaluate else None,
            processing_class=tokenizer,
            peft_config=peft,
        )

    return make


def batch_of(trainer):
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def logps_by_hand(model, batch):
    """[B] from the model's own logits, in float64."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.double()
    logps = logits[:, :-1].log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1)
    return (logps * batch["completion_mask"][:, 1:]).sum(1)


def gradients(trainer, loss):
    trainer.model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in trainer.model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("gate", ["flip", "always"])
@pytest.mark.parametrize("way", ["full", "adapter", "precomputed", "apo"])
def test_loss_and_gradients_are_trls_plus_the_term_by_hand(way, gate, make_trainer, shifted):
    options = {
        "full": {},
        "adapter": {"peft": LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")},
        "precomputed": {"precompute_ref_log_probs": True},
        "apo": {"loss_type": "apo_zero_unpaired"},
    }
    trainer = make_trainer(gamma=0.3, gate=gate, **options[way])
    batch = batch_of(trainer)
    with torch.no_grad():
        ref = logps_by_hand(trainer.model, batch)
    shifted(trainer.model, 0.1)
    policy = logps_by_hand(trainer.model, batch)
    worse = (ref - policy > 0) & batch["label"]
    assert 0 < worse.sum() < batch["label"].sum() < len(policy), "all or none, so little was compared"
    paying = worse if gate == "flip" else batch["label"]
    term = 0.3 * -policy[paying].sum() / len(policy)
    ours = trainer.compute_loss(trainer.model, batch)
    theirs = KTOTrainer.compute_loss(trainer, trainer.model, batch) + term
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    for mine, other in zip(gradients(trainer, ours), gradients(trainer, theirs), strict=True):
        assert (mine - other).norm() <= 1e-5 * other.norm() + 1e-8
    mode = "train" if trainer.model.training else "eval"
    rate = (worse.sum() / batch["label"].sum()).item()
    assert trainer._metrics[mode]["flip/rate"] == pytest.approx([rate] * int(batch["label"].sum()))


def test_with_zero_gamma_the_loss_is_trls_bit_for_bit_and_flips_are_counted(make_trainer, shifted):
    trainer = make_trainer(gamma=0)
    shifted(trainer.model, 0.1)
    batch = batch_of(trainer)
    ours, theirs = (kind.compute_loss(trainer, trainer.model, batch) for kind in (GuardedKTOTrainer, KTOTrainer))
    assert torch.equal(ours, theirs)
    for mine, other in zip(gradients(trainer, ours), gradients(trainer, theirs), strict=True):
        assert torch.equal(mine, other)
    assert max(value for mode in trainer._metrics.values() for value in mode["flip/rate"]) > 0


def test_it_asks_the_models_no_more_often_than_trl(make_trainer, make_model):
    counts = []
    for cls in (GuardedKTOTrainer, KTOTrainer):
        trainer = make_trainer(cls=cls, ref_model=make_model(), max_steps=2)
        calls = []
        for part in (trainer.model.model, trainer.ref_model.model):
            part.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        trainer.train()
        counts.append(len(calls))
    assert counts == [8, 8]


def test_batches_without_a_wanted_answer_change_nothing(make_trainer, shifted):
    trainer = make_trainer(gamma=0.3, gate="always", labels=(False,))
    shifted(trainer.model, 0.1)
    batch = batch_of(trainer)
    ours, theirs = (kind.compute_loss(trainer, trainer.model, batch) for kind in (GuardedKTOTrainer, KTOTrainer))
    assert torch.equal(ours, theirs)
    assert not any("flip/rate" in mode and mode["flip/rate"] for mode in trainer._metrics.values())


@pytest.mark.parametrize("precompute", [False, True])
def test_training_guards_and_logs_from_no_flip_on(precompute, make_trainer):
    trainer = make_trainer(
        gamma=0.2, max_steps=8, precompute_ref_log_probs=precompute, evaluate=True, eval_strategy="steps", eval_steps=8
    )
    trainer.train()
    first, *_ = history = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert first["flip/rate"] == 0
    assert any(entry["flip/rate"] > 0 for entry in history)
    assert any("eval_flip/rate" in entry for entry in trainer.state.log_history)


def test_a_column_that_the_reference_would_not_see_is_refused(make_trainer):
    trainer = make_trainer()
    batch = {**batch_of(trainer), "token_type_ids": torch.zeros(1)}
    with pytest.raises(DataError, match="'token_type_ids', which the reference model would not see"):
        trainer.compute_loss(trainer.model, batch)
