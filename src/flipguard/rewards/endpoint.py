"""A reward behind HTTP: batches are posted as JSON, tried again when the server is busy or down.

    POST {"prompts": [...], "completions": [...], other keys of the rows}  ->  {"scores": [0.3, null, ...]}

Prompts and completions are what a scorer gets: texts, or lists of messages. `rewards` instead of `scores`, or the list
alone, is understood as well. Where the environment has FLIPGUARD_REWARD_KEY, it is sent as a bearer token.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import urllib3

from flipguard.errors import JudgeError, shown
from flipguard.rewards.spec import RewardSpec
from flipguard.scorers import Scorer

BUSY = (408, 429, 500, 502, 503, 504)
KEYS = ("scores", "rewards")


def open_scorer(spec: RewardSpec, place: str) -> Scorer:  # noqa: ARG001 - the signature of all kinds
    """A scorer that asks the server at `spec.path`; it is first asked when there is something to score."""
    return Scorer(spec.path, _Endpoint(spec, _pool(spec)), None, None)


@dataclass(frozen=True)
class _Endpoint:
    spec: RewardSpec
    pool: urllib3.PoolManager

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: list[Any]) -> list[Any]:
        scores: list[Any] = []
        for start in range(0, len(prompts), self.spec.batch_size):
            part = slice(start, start + self.spec.batch_size)
            body = {"prompts": prompts[part], "completions": completions[part]}
            scores += self._ask(body | {key: values[part] for key, values in columns.items()})
        return scores

    def _ask(self, body: dict[str, Any]) -> list[Any]:
        try:
            answer = self.pool.request("POST", self.spec.path, body=orjson.dumps(body))
        except urllib3.exceptions.HTTPError as error:
            raise JudgeError(
                f"{self.spec.path}: no answer, also not after {self.spec.retries} retries ({_reason(error)}). "
                f"Is the server up? A batch may take {self.spec.timeout:g} s: a smaller batch_size or a longer timeout "
                "helps a slow one."
            ) from None
        if answer.status != 200:
            raise JudgeError(
                f"{self.spec.path}: answered with status {answer.status}: {shown(answer.data[:200])}. "
                'It must answer 200 with a JSON object {"scores": [...]}.'
            )
        return self._scores(answer.data, len(body["prompts"]))

    def _scores(self, data: bytes, wanted: int) -> list[Any]:
        try:
            said = orjson.loads(data)
        except orjson.JSONDecodeError:
            said = None
        if isinstance(said, dict):
            said = next((said[key] for key in KEYS if key in said), None)
        if not isinstance(said, list) or len(said) != wanted:
            found = f"{len(said)} scores" if isinstance(said, list) else shown(data[:200])
            raise JudgeError(
                f"{self.spec.path}: answered {found} for {wanted} completions. "
                'It must answer {"scores": [...]}, a number or null for each.'
            )
        return said


def _pool(spec: RewardSpec) -> urllib3.PoolManager:
    key = os.environ.get("FLIPGUARD_REWARD_KEY")
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    retry = urllib3.Retry(
        total=spec.retries,
        allowed_methods=None,  # scoring twice does no harm
        status_forcelist=BUSY,
        backoff_factor=0.25,
        backoff_max=30,
        redirect=0,
        raise_on_status=False,
    )
    return urllib3.PoolManager(headers=headers, retries=retry, timeout=urllib3.Timeout(spec.timeout))


def _reason(error: Exception) -> str:
    """The innermost cause, in a few words."""
    cause: BaseException = error
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason is not None:
        cause = error.reason
    return shown(str(cause).rpartition(": ")[2] or type(cause).__name__, 120)
