"""What π_0 says is asked once, and never believed of other weights, rows or a damaged file."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flipguard.errors import ModelError
from flipguard.train import reference
from flipguard.train.batches import PairCollator
from flipguard.train.data import load_pairs
from flipguard.train.models import load_model
from flipguard.train.recipe import DataSpec, ModelSpec


@pytest.fixture
def model(model_folder):
    return load_model(ModelSpec(path=str(model_folder)))


@pytest.fixture
def rows(tmp_path, make_pairs, tokenizer):
    source = str(make_pairs(tmp_path / "pairs.jsonl"))
    return load_pairs(source, DataSpec(train=source), tokenizer, None).rows


@pytest.fixture
def ask(model, rows, tokenizer):
    def asked(model=model, rows=rows):
        return reference.with_reference(model, rows, PairCollator(tokenizer.pad_token_id), mixed=None)

    return asked


def files():
    return sorted(Path(reference.cache_folder()).rglob("*.safetensors"))


def test_it_says_what_each_row_alone_would_get(ask, model):
    for row in ask():
        for completion, value in zip(row.tokens.completions, (row.ref_chosen, row.ref_rejected), strict=True):
            ids = torch.tensor([row.tokens.prompt + completion])
            with torch.no_grad():
                logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            alone = logps[range(ids.shape[1] - 1), ids[0, 1:]][-len(completion) :].sum()
            assert value == pytest.approx(alone.item(), abs=1e-4)


def test_a_second_run_reads_the_first_ones_answer(ask, monkeypatch):
    first = ask()
    monkeypatch.setattr(reference, "_score", None)
    assert ask() == first
    assert len(files()) == 1


def test_other_weights_or_other_rows_are_asked_anew(ask, model, rows):
    first = ask()
    ask(rows=rows[:10])
    with torch.no_grad():
        next(model.parameters()).add_(0.5)
    assert ask() != first
    model.config.rms_norm_eps = 0.5
    ask()
    assert len(files()) == 4


def test_a_damaged_cache_is_made_again(ask):
    first = ask()
    (path,) = files()
    path.write_bytes(path.read_bytes()[:20])
    assert ask() == first


def test_numbers_that_changed_on_the_disk_are_not_believed(ask):
    first = ask()
    (path,) = files()
    whole = path.read_bytes()
    path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 4]) + whole[-1:])
    assert ask() == first
    assert path.read_bytes() == whole
    save_file({"logps": load_file(path)["logps"] - 50}, path)
    assert ask() == first


def test_a_reference_that_says_nothing_finite_is_refused(ask, model):
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(
        ModelError, match=r"pairs.jsonl:\d+: the reference model gives a log-probability that is not finite"
    ):
        ask()
