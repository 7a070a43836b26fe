"""Packed rows say what padded ones say, in numbers and in gradients, or are not used."""

import itertools
import random
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from flipguard.objective.logprobs import token_logps_from_logits
from flipguard.train.attention import units_of
from flipguard.train.batches import Layout, PairCollator, first_completions
from flipguard.train.data import TokenRow
from flipguard.train.packing import PADDING, packed, visible
from flipguard.train.scoring import scorer_for

SMALL = {
    "vocab_size": 53,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attention_dropout": 0.0,
}
WINDOW = {"sliding_window": 4}
ARCHITECTURES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": WINDOW,
    "mistral without a window": {"sliding_window": None},
    "qwen2 with a window": {**WINDOW, "use_sliding_window": True, "max_window_layers": 1},
    "gemma": {},
    "gemma2": {**WINDOW, "final_logit_softcapping": 1.0, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 8},
    "gemma3_text": {**WINDOW, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "gpt_neox": {},
    "phi3": WINDOW,
}
PACKED = [Layout(share=share, fill=fill) for share, fill in itertools.product((True, False), repeat=2)][:3]
PACKED += [replace(layout, row_tokens=40) for layout in PACKED if layout.fill]


def rows(lengths=((9, 6, 3), (2, 1, 8), (5, 2, 2), (0, 3, 4), (12, 1, 1)), seed=1):
    """Prompts and completions of unequal lengths, an empty prompt and completions of one token among them."""
    rng = random.Random(seed)
    made = [[[rng.randrange(3, 53) for _ in range(length)] for length in row] for row in lengths]
    return [TokenRow("", prompt, (chosen, rejected)) for prompt, chosen, rejected in made]


def build(name, dtype=torch.float64, **more):
    torch.manual_seed(0)
    kind = name.split()[0]
    config = CONFIG_MAPPING[kind](**SMALL | ARCHITECTURES[name] | more)
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)  # far from where every token looks alike
    return model.train()


def plain(model, pairs):
    """[2B, C] from the logits of padded rows, and the gradients of a weighted sum."""
    batch = PairCollator(0).pad(pairs)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return measured(model, token_logps_from_logits(logits, batch["places"], batch["targets"]))


def fast(model, pairs, layout, scorer):
    batch = PairCollator(0, layout).pad(pairs)
    return measured(model, scorer.token_logps(scorer.states(model, batch), batch))


def measured(model, scores):
    model.zero_grad()
    weights = torch.linspace(-1, 1, scores.numel(), dtype=scores.dtype).view_as(scores)
    (scores * weights).sum().backward()
    return scores.detach(), {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def tolerance_of(model):
    """Norms and rotations compute in float32 whatever the weights are, where an architecture has them."""
    return 1e-9 if model.config.model_type in ("gpt2", "gpt_neox") else 1e-5


def assert_same(ours, theirs, tolerance):
    torch.testing.assert_close(ours[0], theirs[0], rtol=tolerance, atol=tolerance)
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in ours[1].items():
        scale = max(1.0, theirs[1][name].abs().max().item())
        assert (gradient - theirs[1][name]).abs().max().item() <= tolerance * scale, name


@pytest.fixture(autouse=True)
def _short_stretches(monkeypatch):
    monkeypatch.setattr("flipguard.train.attention.STRETCH", 3)  # so that the units below have several


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_layout_gives_the_numbers_and_gradients_of_padded_rows(name):
    # In float64, Gemma 2 says NaN of rows padded beyond its window.
    model = build(name, torch.float32 if name == "gemma2" else torch.float64)
    scorer = scorer_for(model, packed=True)
    assert scorer.masks is not None
    expected = plain(model, rows())
    for layout in PACKED:
        assert_same(fast(model, rows(), layout, scorer), expected, tolerance_of(model))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_either_way_to_compute_attention_takes_the_mask(implementation):
    model = build("llama")
    model.set_attn_implementation(implementation)
    scorer = scorer_for(model, packed=True)
    assert scorer.masks.additive is (implementation == "eager")
    assert scorer.masks.by_units is (implementation == "sdpa")
    assert_same(fast(model, rows(), PACKED[0], scorer), plain(model, rows()), tolerance_of(model))


def test_adapters_learn_the_same_and_frozen_weights_nothing():
    model = get_peft_model(
        build("llama"), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    ).double()
    scorer = scorer_for(model, packed=True)
    ours, theirs = fast(model, rows(), PACKED[0], scorer), plain(model, rows())
    assert all("lora" in name for name in ours[1])
    assert_same(ours, theirs, tolerance_of(model))


def test_an_adapter_on_the_head_itself_learns_too():
    adapter = LoraConfig(r=2, target_modules=["q_proj", "lm_head"], init_lora_weights=False)
    model = get_peft_model(build("llama"), adapter).double()
    ours, theirs = fast(model, rows(), PACKED[0], scorer_for(model, packed=True)), plain(model, rows())
    assert any("lm_head" in name for name in ours[1])
    assert_same(ours, theirs, tolerance_of(model))


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(reentrant):
    model = build("mistral")
    scorer, expected = scorer_for(model, packed=True), plain(model, rows())
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    assert_same(fast(model, rows(), PACKED[0], scorer), expected, tolerance_of(model))


def test_a_head_tied_to_the_embedding_gets_both_gradients():
    model = build("llama", tie_word_embeddings=True)
    assert_same(
        fast(model, rows(), PACKED[0], scorer_for(model, packed=True)), plain(model, rows()), tolerance_of(model)
    )


def test_bfloat16_differs_by_its_rounding_only():
    model = build("llama", torch.float32)
    scorer, exact = scorer_for(model, packed=True), plain(model, rows())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = plain(model, rows())
        ours = fast(model, rows(), PACKED[0], scorer)
    error = (expected[0] - exact[0]).abs().max().item()
    assert (ours[0] - exact[0]).abs().max().item() < 2 * error
    for name, gradient in exact[1].items():
        error = (expected[1][name] - gradient).norm().item()
        assert (ours[1][name] - gradient).norm().item() < 1.5 * error + 1e-3 * gradient.norm().item(), name


def test_a_window_that_is_forgotten_is_noticed(monkeypatch):
    """What the probe is for: 4D masks replace the model's own, window and all."""
    model = build("mistral")
    monkeypatch.setattr("flipguard.train.scoring.visible", lambda batch, _window: visible(batch))
    assert scorer_for(model, packed=True).masks is None


def test_an_architecture_that_takes_no_mask_of_ours_is_read_in_padded_rows():
    torch.manual_seed(0)
    sizes = {"vocab_size": 53, "hidden_size": 16, "n_layer": 2, "n_head": 2}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING["bloom"](**sizes))
    scorer = scorer_for(model, packed=True)
    assert scorer.masks is None
    with pytest.raises(ValueError, match="need a Scorer with masks"):
        fast(model, rows(), PACKED[0], scorer)


@pytest.mark.parametrize("kind", ["llama", "stablelm"])
def test_attention_goes_unit_by_unit_where_an_architecture_hands_units_on(kind):
    """StableLM drops what it does not know: its masks work, over whole rows."""
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**{**SMALL, "num_key_value_heads": 2}))
    assert scorer_for(model, packed=True).masks.by_units is (kind == "llama")
    assert model.config._attn_implementation == ("flipguard_units" if kind == "llama" else "sdpa")


def test_what_lies_in_other_units_or_ahead_is_not_computed(monkeypatch):
    looked_at = []

    def attend(module, query, key, value, mask, **options):
        looked_at.append(query.shape[2] * key.shape[2])
        return sdpa_attention_forward(module, query, key, value, mask, **options)

    monkeypatch.setattr("flipguard.train.attention.sdpa_attention_forward", attend)
    model = build("llama")
    scorer = scorer_for(model, packed=True)
    looked_at.clear()
    batch = PairCollator(0, Layout(share=True, fill=True, row_tokens=40)).pad(rows([(9, 1, 1), (6, 1, 1)]))
    scorer.states(model, batch)
    assert batch["input_ids"].shape == (1, 15)
    layers, by_threes = 2, 3 * (3 + 6 + 9) + 3 * (3 + 6)
    assert sum(looked_at) == layers * by_threes


def test_a_model_read_by_units_says_generates_and_saves_what_it_did_before():
    model = build("mistral").eval()
    prompt, saved = torch.tensor([[3, 4, 5, 6, 7, 8]]), model.config.to_dict()
    before = model(prompt).logits, model.generate(prompt, max_new_tokens=8, do_sample=False)
    scorer_for(model, packed=True)
    assert model.config._attn_implementation == "flipguard_units"
    torch.testing.assert_close(model(prompt).logits, before[0], rtol=0, atol=1e-12)
    assert model.generate(prompt, max_new_tokens=8, do_sample=False).equal(before[1])
    assert model.config.to_dict() == saved


def test_a_prompt_is_read_once_and_the_last_token_never():
    (prompt, chosen, rejected) = ([3, 4, 5], [6, 7], [8, 9, 10])
    batch = packed([TokenRow("", prompt, (chosen, rejected))], 0, share=True, fill=True)
    assert batch["input_ids"].tolist() == [[3, 4, 5, 6, 8, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 3, 4]]
    assert batch["places"].tolist() == [[2, 3, -1], [2, 4, 5]]
    assert batch["targets"].tolist() == [[6, 7, 0], [8, 9, 10]]
    assert visible(batch)[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 0, 1, 0],
        [1, 1, 1, 0, 1, 1],
    ]


def test_rows_may_be_longer_than_the_longest_pair_and_then_hold_no_padding_but_at_the_last():
    many = rows([(9, 2, 2), (5, 3, 1), (4, 2, 2), (2, 1, 1)])
    batch = packed(many, 0, share=True, fill=True, room=64)
    assert batch["input_ids"].shape == (1, 11 + 7 + 6 + 2)
    assert (batch["segments"] != PADDING).all()
    assert units_of(batch["prefixes"]).lengths == [[11, 7, 6, 2]]


def test_filled_rows_hold_little_padding_and_no_row_is_longer_than_the_longest_pair():
    rng = random.Random(0)
    many = rows([(rng.randint(5, 60), rng.randint(1, 20), rng.randint(1, 20)) for _ in range(40)])
    longest = max(len(row.prompt) + sum(len(one) - 1 for one in row.completions) for row in many)
    batch = packed(many, 0, share=True, fill=True)
    assert batch["input_ids"].shape[1] == longest
    assert (batch["segments"] == PADDING).double().mean() < 0.15


def test_half_of_the_completions_needs_half_of_the_padded_rows_and_all_packed_ones():
    model = build("llama")
    scorer = scorer_for(model, packed=True)
    for layout in (Layout(), *PACKED):
        batch = PairCollator(0, layout).pad(rows())
        half = first_completions(batch, 2)
        with torch.no_grad():
            whole = scorer.token_logps(scorer.states(model, batch), batch)
            chosen = scorer.token_logps(scorer.states(model, half), half)
        width = chosen.shape[1]
        torch.testing.assert_close(whole[:5, :width], chosen, rtol=0, atol=1e-12)
        assert half["input_ids"].shape[0] == (batch["input_ids"].shape[0] if layout.is_packed else 5)
