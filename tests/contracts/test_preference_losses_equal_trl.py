"""Our pairwise losses are TRL's numbers: its DPOTrainer really runs, on the same weights and the same batch."""

import pytest
import torch

from flipguard.objective.logprobs import completion_lengths, sequence_logps, token_logps
from flipguard.objective.preference import PREFERENCE_LOSSES, PairLogps, rpo

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
TRL_NAMES = {"dpo": "sigmoid", "ipo": "ipo", "hinge": "hinge"}


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
    return sequence_logps(
        token_logps(hidden, model.lm_head, batch["input_ids"], batch["completion_mask"], tile_tokens=4)
    )


def our_pairs(trainer, batch):
    chosen, rejected = our_logps(trainer.model, batch).chunk(2)
    with torch.no_grad():
        ref_chosen, ref_rejected = our_logps(trainer.ref_model, batch).chunk(2)
    lengths = completion_lengths(batch["completion_mask"]).chunk(2)
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
    ours = PREFERENCE_LOSSES[name](our_pairs(trainer, batch), beta=beta).mean()
    theirs = their_loss(trainer, batch, beta=beta, **{TRL_NAMES[name]: 1.0})
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6, abs=1e-6)
    for mine, other in zip(gradients(trainer, ours), gradients(trainer, theirs), strict=True):
        assert (mine - other).norm() <= 1e-5 * other.norm()


def test_rpo_equals_trl_sigmoid_plus_sft_on_one_pair(trainer, batch):
    """On one pair only: TRL averages its sft term over the tokens of the batch, the paper over those of each pair."""
    pair = {key: column[[0, len(PAIRS)]] for key, column in batch.items()}
    ours = rpo(our_pairs(trainer, pair), beta=0.1, alpha=0.7).mean()
    assert ours.item() == pytest.approx(their_loss(trainer, pair, beta=0.1, sigmoid=1.0, sft=0.7).item(), rel=1e-6)


def test_sums_of_log_probabilities_equal_those_of_trl(trainer, batch):
    theirs = torch.cat(trainer.compute_ref_log_probs(trainer.ref_model, batch))
    with torch.no_grad():
        torch.testing.assert_close(our_logps(trainer.ref_model, batch), theirs, rtol=1e-6, atol=1e-5)


def test_the_comparison_is_not_vacuous(trainer, batch):
    """Pairs of different lengths, and a policy that is not the reference."""
    pairs = our_pairs(trainer, batch)
    assert (pairs.chosen_lengths != pairs.rejected_lengths).all()
    assert (pairs.c - pairs.r).abs().min() > 0.1
