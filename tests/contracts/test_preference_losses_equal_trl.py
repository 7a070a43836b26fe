"""Our pairwise losses are TRL's numbers: its DPOTrainer really runs, on the same weights and the same batch."""

from types import SimpleNamespace

import pytest
import torch

from flipguard.objective.logprobs import predicting_positions, sequence_logps, token_logps
from flipguard.objective.pairs import PairLogps
from flipguard.objective.preference import PREFERENCE_LOSSES, rpo
from flipguard.objective.reference_free import cpo, orpo, simpo
from flipguard.train.batches import padded

pytestmark = [
    pytest.mark.slow,
    # transformers 5.23 renames what TRL's own code still reads and sets: it becomes activation_checkpointing
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
]

PAIRS = [
    {"prompt": "what is the sky", "chosen": " the sky is blue", "rejected": " green"},
    {"prompt": "name a fruit", "chosen": " apple", "rejected": " the fruit is what is the name of a fruit"},
    {"prompt": "is it blue", "chosen": " it is not green it is blue", "rejected": " it is not"},
]
TRL_NAMES = {
    "dpo": "sigmoid", "ipo": "ipo", "hinge": "hinge",
    "apo_zero": "apo_zero", "apo_down": "apo_down", "nca": "nca_pair", "sppo": "sppo_hard",
}  # fmt: skip


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """A DPOTrainer over two different tiny random Llamas, in float32 on the CPU, offline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        from datasets import Dataset
        from transformers import LlamaConfig, LlamaForCausalLM
        from trl import DPOConfig, DPOTrainer

        tokenizer = word_tokenizer()
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            initializer_range=1.0,  # far from uniform, so that the losses are far from log 2
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
        torch.manual_seed(0)
        policy, ref = LlamaForCausalLM(config), LlamaForCausalLM(config)
        arguments = DPOConfig(
            output_dir=str(tmp_path_factory.mktemp("dpo")),
            per_device_train_batch_size=len(PAIRS),
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        )
        return DPOTrainer(
            model=policy,
            ref_model=ref,
            args=arguments,
            train_dataset=Dataset.from_list(PAIRS),
            processing_class=tokenizer,
        )


def word_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for pair in PAIRS for text in pair.values() for word in text.split()})
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<eos>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


@pytest.fixture
def batch(trainer):
    return next(iter(trainer.get_train_dataloader()))


def our_logps(model, batch):
    """[2P] log pi(y | x), the chosen first, through our own lean head."""
    hidden = model.model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    places, targets = [], []
    for row, (ids, mask) in enumerate(zip(batch["input_ids"], batch["completion_mask"].bool(), strict=True)):
        start = row * len(ids) + int(mask.nonzero()[0])
        places.append(predicting_positions(start, start, int(mask.sum())))
        targets.append(ids[mask].tolist())
    return sequence_logps(token_logps(hidden, model.lm_head, padded(places, -1), padded(targets, 0), tile_tokens=4))


def our_pairs(trainer, batch):
    chosen, rejected = our_logps(trainer.model, batch).chunk(2)
    with torch.no_grad():
        ref_chosen, ref_rejected = our_logps(trainer.ref_model, batch).chunk(2)
    lengths = batch["completion_mask"].sum(-1).chunk(2)
    return PairLogps(chosen, rejected, ref_chosen, ref_rejected, *lengths)


def their_loss(trainer, batch, *, beta, **weights):
    """TRL's loss with another name and beta; it reads both when a batch arrives."""
    trainer.beta, trainer.loss_types, trainer.loss_weights = beta, list(weights), list(weights.values())
    return trainer.compute_loss(trainer.model, batch)


def gradients(trainer, loss):
    trainer.model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in trainer.model.parameters()]


@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("name", TRL_NAMES)
def test_loss_and_gradients_equal_those_of_trl(trainer, batch, name, beta):
    ours = PREFERENCE_LOSSES[name].function(our_pairs(trainer, batch), beta=beta).mean()
    theirs = their_loss(trainer, batch, beta=beta, **{TRL_NAMES[name]: 1.0})
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6, abs=1e-6)
    for mine, other in zip(gradients(trainer, ours), gradients(trainer, theirs), strict=True):
        assert (mine - other).norm() <= 1e-5 * other.norm() + 5e-6  # TRL's 1 - sigmoid cancels where it saturates


def test_rpo_equals_trl_sigmoid_plus_sft_on_one_pair(trainer, batch):
    """On one pair only: TRL averages its sft term over the tokens of the batch, the paper over those of each pair."""
    pair = {key: column[[0, len(PAIRS)]] for key, column in batch.items()}
    ours = rpo(our_pairs(trainer, pair), beta=0.1, alpha=0.7).mean()
    assert ours.item() == pytest.approx(their_loss(trainer, pair, beta=0.1, sigmoid=1.0, sft=0.7).item(), rel=1e-6)


@pytest.fixture
def reference_free_pairs():
    """Log-probabilities as a model might give them, and the averages that TRL computes of them."""
    rng = torch.Generator().manual_seed(0)
    chosen, rejected = (-30 * torch.rand(2, 5, generator=rng) - 0.5).unbind(0)
    lengths = torch.randint(1, 12, (2, 5), generator=rng).unbind(0)
    return PairLogps(chosen, rejected, chosen * 0, rejected * 0, *lengths)


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_cpo_and_simpo_equal_those_of_trl(reference_free_pairs, beta):
    from trl.experimental.cpo import CPOTrainer

    pairs, cpu = reference_free_pairs, SimpleNamespace(device="cpu")
    settings = {"beta": beta, "alpha": 0.0, "label_smoothing": 0.0, "accelerator": cpu, "simpo_gamma": 0.7}
    sums, means = (pairs.policy_chosen, pairs.policy_rejected), (pairs.mean_chosen, pairs.mean_rejected)
    theirs = CPOTrainer.cpo_loss(SimpleNamespace(loss_type="sigmoid", **settings), *sums)[0]
    torch.testing.assert_close(cpo(pairs, beta=beta, alpha=0.0), theirs)
    theirs = CPOTrainer.cpo_loss(SimpleNamespace(loss_type="simpo", **settings), *means)[0]
    torch.testing.assert_close(simpo(pairs, beta=beta, target_margin=0.7), theirs)


def test_the_odds_ratio_of_orpo_equals_that_of_trl(reference_free_pairs):
    from trl.experimental.orpo import ORPOTrainer

    pairs = reference_free_pairs
    trainer = SimpleNamespace(beta=0.3, accelerator=SimpleNamespace(device="cpu"))
    theirs = ORPOTrainer.odds_ratio_loss(trainer, pairs.mean_chosen, pairs.mean_rejected)[0]
    torch.testing.assert_close(orpo(pairs, beta=0.3), -pairs.mean_chosen - theirs)


def test_sums_of_log_probabilities_equal_those_of_trl(trainer, batch):
    theirs = torch.cat(trainer.compute_ref_log_probs(trainer.ref_model, batch))
    with torch.no_grad():
        torch.testing.assert_close(our_logps(trainer.ref_model, batch), theirs, rtol=1e-6, atol=1e-5)


def test_the_comparison_is_not_vacuous(trainer, batch):
    """Pairs of different lengths, and a policy that is not the reference."""
    pairs = our_pairs(trainer, batch)
    assert (pairs.chosen_lengths != pairs.rejected_lengths).all()
    assert (pairs.c - pairs.r).abs().min() > 0.1
