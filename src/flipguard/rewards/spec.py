"""What is known of a reward before it is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["auto", "classifier", "text_pair", "regression_head", "endpoint", "function"]
Form = Literal["auto", "chat", "plain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSpec:
    """Which reward, and how it is asked.

    Attributes:
        path: a model folder or hub id, a URL (http:// or https://), or package.module:function.
        kind: one of `KINDS`; auto finds it by looking.
        form: how a classifier reads a conversation: through its tokenizer's chat template, or as plain text; auto is
            what the model was trained with here, else its template if it has one.
        revision: of a hub id.
        dtype: of the weights; auto is what they are stored in.
        max_tokens: longer texts are cut at their end; None: what the model can read.
        batch_size: texts scored at once; an endpoint gets so many in one request.
        timeout: seconds an endpoint may take for one request.
        retries: how often a request is tried again.
    """

    path: str
    kind: Kind = "auto"
    form: Form = "auto"
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_tokens: int | None = None
    batch_size: int = 16
    timeout: float = 60.0
    retries: int = 4
