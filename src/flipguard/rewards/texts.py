"""Prompt and completion, as a scorer gets them, in the shapes that reward models read."""

from __future__ import annotations

from typing import Any

from flipguard.errors import JudgeError

HUMAN, ASSISTANT = "Human: ", "Assistant: "


def conversation(prompt: Any, completion: Any) -> list[dict[str, str]]:
    """Messages; a text becomes a turn of the user.

    >>> conversation("2 + 2?", "4")
    [{'role': 'user', 'content': '2 + 2?'}, {'role': 'assistant', 'content': '4'}]
    """
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    answered = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
    return [*asked, *answered]


def plain(prompt: Any, completion: Any) -> str:
    """One text, as a model without a chat template was trained on it.

    >>> plain("2 + 2 =", " 4")
    '2 + 2 = 4'
    """
    if not isinstance(prompt, str) or not isinstance(completion, str):
        raise JudgeError("the reward model reads plain text, but the prompts are lists of messages. Set form: chat.")
    return prompt + completion


def question_and_answer(prompt: Any, completion: Any) -> tuple[str, str]:
    r"""All turns before the last as one text, a line each, and the last.

    >>> question_and_answer([{"role": "user", "content": "2 + 2?"}], [{"role": "assistant", "content": "4"}])
    ('2 + 2?', '4')
    """
    *before, last = conversation(prompt, completion)
    return "\n".join(turn["content"] for turn in before), last["content"]


def human_and_assistant(prompt: Any, completion: Any) -> str:
    r"""The form of UltraRM: turns named Human and Assistant, an empty line between them; system turns as they are.

    >>> human_and_assistant("2 + 2?", "4")
    'Human: 2 + 2?\n\nAssistant: 4'
    """
    names = {"user": HUMAN, "assistant": ASSISTANT}
    turns = conversation(prompt, completion)
    return "\n\n".join(names.get(turn["role"], "") + turn["content"] for turn in turns)
