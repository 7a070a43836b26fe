"""What a recipe says of the guard: gamma · w · D (Eq. 11), who pays it, and how gamma moves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Gate = Literal["flip", "always", "off", "soft", "token"]
Divergence = Literal["ce", "kl", "reverse_kl", "js", "wasserstein"]
Schedule = Literal["constant", "linear", "cosine"]

DEFAULT_RATE = 0.01  # of the adaptive gamma: a step in which all flips adds as much as the paper's whole gamma


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ConstraintSpec:
    """The guard, gamma · w · D (Eq. 11).

    By its gate, w is 1 on flips (`flip`), on every row (`always`: distillation), nowhere (`off`), a + b · flip (`soft`,
    with `weights: [a, b]`), or 1 on the single tokens that flip (`token`). Gamma follows a `schedule` after a `warmup`
    (a share of the steps), or moves at `adaptive_rate` until `target_flip_rate` is met. Rows that the file `flips` of a
    comparison names as negative flips have their w multiplied by `flip_weight`.
    """

    gamma: Weight = 0.01
    epsilon: Weight = 0.0
    gate: Gate = "flip"
    divergence: Divergence = "ce"
    reduction: Literal["sum", "mean"] = "sum"
    weights: tuple[Weight, Weight] | None = None
    schedule: Schedule = "constant"
    warmup: float = Field(default=0.0, ge=0, lt=1)
    target_flip_rate: float | None = Field(default=None, ge=0, le=1)
    adaptive_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    flips: str | None = None
    flip_weight: Weight | None = None

    @model_validator(mode="after")
    def _what_belongs_together(self) -> ConstraintSpec:
        if (self.gate == "soft") != (self.weights is not None):
            raise ValueError("'weights: [a, b]' and 'gate: soft' go together; give both or neither")
        if self.adaptive_rate is not None and self.target_flip_rate is None:
            raise ValueError("'adaptive_rate' has no meaning without 'target_flip_rate'; give both or neither")
        if self.target_flip_rate is not None and (self.schedule != "constant" or self.warmup):
            raise ValueError("gamma follows either a schedule or 'target_flip_rate'; remove one of them")
        if (self.flips is None) != (self.flip_weight is None):
            raise ValueError("'flips: flips.jsonl' and 'flip_weight' go together; give both or neither")
        if self.gate == "off" and (self.target_flip_rate is not None or self.flips is not None):
            raise ValueError("'gate: off' has no guard that 'target_flip_rate' or 'flips' could change; remove them")
        return self
