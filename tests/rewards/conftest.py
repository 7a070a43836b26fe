"""Reward models small enough to check by hand, made from configs."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

WORDS = [f"w{number}" for number in range(30)] + ["Human:", "Assistant:"]
CHAT = "<s> {% for m in messages %}{{ '<' + m['role'] + '> ' + m['content'] + ' </s> ' }}{% endfor %}"
SHAPE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def make_tokenizer(*, chat=None, pad=None, pairs=False):
    names = ["<s>", "</s>", "<unk>", "<pad>", "<user>", "<assistant>", *WORDS]
    backend = Tokenizer(models.WordLevel({name: at for at, name in enumerate(names)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [("<s>", 0), ("</s>", 1)]
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A </s> $B:1 </s>:1" if pairs else "<s> $A $B", special_tokens=special
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token=pad,
        sep_token="</s>" if pairs else None,
        chat_template=chat,
        model_input_names=["input_ids", *["token_type_ids"] * pairs, "attention_mask"],
    )


@pytest.fixture
def save_classifier(tmp_path):
    """Writes a causal sequence classifier with a loud random head; its tokenizer as asked."""

    def save(name="reward", *, labels=1, **tokenizer):
        made = make_tokenizer(**tokenizer)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            config = LlamaConfig(
                vocab_size=len(made),
                num_key_value_heads=1,
                max_position_embeddings=64,
                initializer_range=0.5,
                num_labels=labels,
                pad_token_id=made.pad_token_id,
                **SHAPE,
            )
            model = LlamaForSequenceClassification(config)
        model.save_pretrained(tmp_path / name)
        made.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def save_pair_classifier(tmp_path):
    def save(name="pairs", **tokenizer):
        made = make_tokenizer(pairs=True, **tokenizer)
        with torch.random.fork_rng():
            torch.manual_seed(4)
            config = BertConfig(
                vocab_size=len(made), max_position_embeddings=32, num_labels=1, initializer_range=0.5, **SHAPE
            )
            model = BertForSequenceClassification(config)
        model.save_pretrained(tmp_path / name)
        made.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save
