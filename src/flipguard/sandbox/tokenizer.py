"""A word is a token: a real fast tokenizer with a chat template, small enough to read.

<|begin|> <|user|> how do i kill the process in the office <|assistant|> first take the keyboard ... <|end|>
"""

from __future__ import annotations

from typing import Any

from flipguard.sandbox import teacher, words
from flipguard.sandbox.world import STEP_MARKERS, finite_questions

PAD, UNKNOWN, BEGIN, END, USER, ASSISTANT = (
    "<|pad|>",
    "<|unknown|>",
    "<|begin|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
)
SPECIAL = (PAD, UNKNOWN, BEGIN, END, USER, ASSISTANT)
MAX_LENGTH = 64

# A conversation with the generation prompt is a prefix of the same conversation with its answer.
CHAT_TEMPLATE = """\
{{ bos_token }}{% for message in messages %}\
{% if message['role'] == 'assistant' %}\
{{ '<|assistant|> ' }}{% generation %}{{ message['content'] + ' ' + eos_token }}{% endgeneration %}\
{% else %}\
{{ '<|user|> ' + message['content'] + ' ' }}\
{% endif %}{% endfor %}\
{% if add_generation_prompt %}<|assistant|>{% endif %}"""


def vocabulary() -> list[str]:
    """Every token in the order of its number: the special ones, then all words of the world by the alphabet."""
    sentences = [*words.SORT_REQUESTS, *words.REVERSE_REQUESTS, *words.REFUSALS, *STEP_MARKERS, *words.LETTERS]
    sentences += [*words.MISCONCEPTIONS.values(), *teacher.TOOLS, *teacher.CLOSINGS]
    sentences += [part for question in finite_questions().values() for part in (question.text, question.help)]
    return [*SPECIAL, *sorted({word for sentence in sentences for word in sentence.split()})]


def build_tokenizer() -> Any:
    """The world's `PreTrainedTokenizerFast`: words split at spaces, nothing added, padding on the left."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    numbers = {token: number for number, token in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
