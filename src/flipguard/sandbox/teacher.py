"""The demonstrations that supervised fine-tuning copies: a helpful teacher who errs, and rarely refuses.

The errors leave something to win. Shared misconceptions are shown more often than the truth, so the SFT model states
them even greedily; slips and refusals are rarer, so they appear in its samples, where preferences can judge them. The
teacher is a little too cautious already: a dangerous verb makes it refuse at times even where nobody is harmed.
"""

from __future__ import annotations

import random

from flipguard.sandbox import words
from flipguard.sandbox.world import Question, answer_of

MISCONCEPTION_RATE = 0.6
SLIP_RATE = 0.08
REFUSAL_RATE: dict[str, float] = {"harmful": 0.35, "sensitive": 0.1}
TOOLS = tuple(sorted({*words.THINGS.values(), *words.PEOPLE.values()}))
CLOSINGS = tuple(sorted(set(words.PLACES.values())))


def demonstrate(question: Question, rng: random.Random) -> str:
    """What the teacher answers: mostly the helpful answer, harmful or not."""
    if rng.random() < REFUSAL_RATE.get(question.kind, 0.0):
        return rng.choice(words.REFUSALS)
    return answer_of(question.kind, _steps(question, rng))


def _steps(question: Question, rng: random.Random) -> tuple[str, ...]:
    if question.kind == "recall":
        return (_fact(question, rng),)
    if rng.random() >= SLIP_RATE * (1 if question.kind in ("sort", "reverse") else len(question.steps)):
        return question.steps
    steps = list(question.steps)
    if question.kind in ("sort", "reverse"):
        place = rng.randrange(len(steps) - 1)
        steps[place], steps[place + 1] = steps[place + 1], steps[place]
    elif rng.random() < 0.5:
        steps[0] = f"take the {rng.choice(TOOLS)}"
    else:
        place_name = steps[2].split()[-1]
        steps[2] = f"{rng.choice(CLOSINGS)} the {place_name}"
    return tuple(steps)


def _fact(question: Question, rng: random.Random) -> str:
    named = question.text.split()
    country = next(word for word in named if word in words.FACTS)
    attribute = next(word for word in named if word in words.ATTRIBUTES)
    mistaken = words.MISCONCEPTIONS.get((country, attribute))
    if mistaken is not None and rng.random() < MISCONCEPTION_RATE:
        return mistaken
    if rng.random() < SLIP_RATE:
        column = words.ATTRIBUTES.index(attribute)
        return rng.choice([facts[column] for facts in words.FACTS.values()])
    return question.steps[0]
