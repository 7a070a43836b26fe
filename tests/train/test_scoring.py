"""The shortcut through hidden states says what the full logits say, or is not taken."""

import random

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from flipguard.objective.logprobs import token_logps_from_logits
from flipguard.train.batches import PairCollator
from flipguard.train.data import TokenRow
from flipguard.train.scoring import reads_ahead, scorer_for

SMALL = {
    "vocab_size": 53,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TAKES_THE_SHORTCUT = {
    "llama": True,
    "qwen2": True,
    "qwen3": True,
    "mistral": True,
    "gemma": True,
    "gemma2": True,
    "gemma3_text": True,
    "granite": True,
    "cohere": True,
    "gpt2": True,
    "gpt_neox": True,
}
EXTRA = {
    "mistral": {"sliding_window": 4},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
    "gemma2": {"final_logit_softcapping": 0.01, "sliding_window": 4},
}


def build(kind):
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**SMALL | EXTRA.get(kind, {}))
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture
def batch():
    rng = random.Random(1)
    rows = [[rng.randrange(3, 53) for _ in range(length)] for length in (4, 5, 5, 4, 2, 5)]
    return PairCollator(0).pad(
        [TokenRow("", prompt, (answer,)) for prompt, answer in zip(rows[:3], rows[3:], strict=True)]
    )


@pytest.mark.parametrize("kind", TAKES_THE_SHORTCUT)
def test_every_architecture_gives_the_numbers_and_gradients_of_its_full_logits(kind, batch):
    model = build(kind)
    scorer = scorer_for(model)
    assert (scorer.trunk is not None) is TAKES_THE_SHORTCUT[kind]

    ours = scorer.token_logps(scorer.states(model, batch), batch)
    ours.sum().backward()
    gradient = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    model.zero_grad()

    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    theirs = token_logps_from_logits(logits, batch["places"], batch["targets"])
    theirs.sum().backward()

    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradient[name], parameter.grad, rtol=1e-4, atol=1e-4)


def test_an_adapter_is_part_of_the_policy(batch):
    from peft import LoraConfig, get_peft_model

    plain = build("llama")
    adapted = get_peft_model(build("llama"), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    scorer = scorer_for(adapted)
    assert scorer.trunk is not None
    says = scorer.token_logps(scorer.states(adapted, batch), batch)
    base = scorer_for(plain)
    assert not torch.allclose(says, base.token_logps(base.states(plain, batch), batch))
    logits = adapted(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = token_logps_from_logits(logits, batch["places"], batch["targets"])
    torch.testing.assert_close(says, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [*TAKES_THE_SHORTCUT, "mamba", "gpt2"])
def test_a_causal_model_does_not_read_ahead(kind):
    model = build(kind)
    assert not reads_ahead(model)
    assert not reads_ahead(model.bfloat16())


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_an_encoder_reads_ahead_unless_it_is_made_a_decoder(kind):
    assert reads_ahead(build(kind))
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**SMALL | {"is_decoder": True})
    assert not reads_ahead(AutoModelForCausalLM.from_config(config))
