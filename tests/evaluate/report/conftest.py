"""Example comparisons: small, made by hand, with honest intervals."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from flipguard.evaluate.comparison import Alignment, Answer, Comparison, Net, Pair, Proportion, Slice

HOSTILE = (
    "<script>window.__pwned=1</script>",
    "<img src=x onerror=window.__pwned=1>",
    "<svg/onload=window.__pwned=1>",
    '"><iframe srcdoc="<script>parent.__pwned=1</script>">',
    "' onmouseover='window.__pwned=1' x='",
    "[click](javascript:window.__pwned=1)",
    '<a href="javascript:window.__pwned=1">x</a>',
    "{{ 7*7 }}{% for x in range(9) %}pwned{% endfor %}{# gone #}",
    "</script><script>window.__pwned=1</script>",
    "</style><style>*{display:none}</style>",
    "<!-- <![CDATA[ ]]> --!>",
    "</details></main></svg></title></textarea><plaintext>",
    "nul\x00bell\x07bs\x08esc\x1b[2J\x1b]0;title\x07csi\x9b31m",
    "rtl \u202egnp.exe\u202c \u2066x\u2069 \u2028 line",
    "lone \ud800 surrogate \udfff and \ufffe",
    "`` ``` ```` ~~~~ | a | b |\n```\n</details>\n# heading\n- [ ] @everyone #1 ![i](https://evil.example/i.png)",
    "www.evil.example https://evil.example/?q=1 <https://evil.example>",
    "]]>&lt;script&gt;&amp;&#x3c;script&#62;",
)


def wilson(k: int, n: int) -> Proportion:
    """Close enough to the real interval for a drawing."""
    if n == 0:
        return Proportion(k=0, n=0, value=None, low=0.0, high=1.0, upper=1.0)
    z, share = 1.96, k / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    high = min(1.0, middle + half)
    return Proportion(
        k=k,
        n=n,
        value=share,
        low=max(0.0, middle - half),
        high=high,
        upper=min(1.0, share + 0.9 * (high - share) + 1e-9),
    )


def summarise(pairs: Sequence[Pair], **changes: object) -> Comparison:
    """A Comparison of these pairs, counts right and p-values invented."""
    seen = Counter(pair.outcome for pair in pairs)
    n = len(pairs) - seen["invalid"]
    names = sorted({name for pair in pairs for name in pair.categories})
    comparison = Comparison(
        old="acme/base-7b",
        new="acme/aligned-7b",
        n=n,
        negative_flips=seen["negative_flip"],
        positive_flips=seen["positive_flip"],
        ties=seen["tie"],
        inconsistent=seen["inconsistent"],
        invalid=seen["invalid"],
        nfr=wilson(seen["negative_flip"], n),
        win_rate=wilson(seen["positive_flip"], n),
        nfr_given_correct=None,
        net=Net((seen["positive_flip"] - seen["negative_flip"]) / n if n else None, 3.94e-36 if n else 1.0),
        slices=tuple(_slice(name, pairs) for name in names),
        alignment=Alignment(len(pairs) + 3, len(pairs), len(pairs), 3, 0, 0, 2),
        margin=0.1,
        alpha=0.05,
        verdict="fail",
        reason="The upper end of the negative flip rate, 6.4 %, is above the limit of 5 %.",
        provenance={
            "max_nfr": 0.05,
            "command": "flipguard compare old.jsonl new.jsonl --max-nfr 0.05 --out report",
            "flipguard": "0.1.0",
            "created": "2026-11-20T10:00:00Z",
            "inputs": {"old.jsonl": "sha256:9f2c71b6a0", "new.jsonl": "sha256:77aa01cc3e"},
        },
    )
    return replace(comparison, **changes)  # type: ignore[arg-type]


def _slice(name: str, pairs: Sequence[Pair]) -> Slice:
    mine = [pair for pair in pairs if name in pair.categories and pair.outcome != "invalid"]
    worse = sum(pair.outcome == "negative_flip" for pair in mine)
    better = sum(pair.outcome == "positive_flip" for pair in mine)
    return Slice(name, len(mine), worse, better, wilson(worse, len(mine)), wilson(better, len(mine)), 0.031)


WORDS = re.findall(
    r"\w+",
    "the model answers this question about water heat light and sound with a short clear reason that holds because "
    "energy moves from warm places to cold ones until nothing is left to move",
)
CATEGORIES = ("reasoning", "coding", "writing", "safety", "knowledge", "数学", "ترجمة")


def scored(n: int, *, seed: int = 0, length: int = 60, shift: float = 0.35, text: bool = True) -> list[Pair]:
    """Pairs with continuous scores."""
    rng = random.Random(seed)
    pairs = []
    for index in range(n):
        old = rng.gauss(0, 1)
        new = old + rng.gauss(shift, 0.35) if rng.random() < 0.55 else old + rng.uniform(-0.09, 0.09)
        change = new - old
        outcome = "negative_flip" if change < -0.1 else "positive_flip" if change > 0.1 else "tie"
        words = rng.choices(WORDS, k=length)
        other = [word if rng.random() < 0.8 else rng.choice(WORDS) for word in words]
        pairs.append(
            Pair(
                id=f"q-{index}",
                repeat=0,
                old=Answer(old, " ".join(words) + "." if text else None),
                new=Answer(new, " ".join(other) + "." if text else None),
                outcome=outcome,
                prompt=f"Why does example {index} behave like {rng.choice(WORDS)} near {rng.choice(WORDS)}?",
                categories=(rng.choice(CATEGORIES),),
            )
        )
    return pairs


def binary(n: int, *, seed: int = 0) -> tuple[Comparison, list[Pair]]:
    """Right or wrong, without texts, as benchmark files are."""
    rng = random.Random(seed)
    pairs = []
    for index in range(n):
        old, new = float(rng.random() < 0.7), float(rng.random() < 0.75)
        new = old if rng.random() < 0.8 else new
        outcome = "negative_flip" if new < old else "positive_flip" if new > old else "tie"
        pairs.append(Pair(index, 0, Answer(old), Answer(new), outcome, None, ("arc" if index % 3 else "gsm8k",)))
    worse = sum(pair.outcome == "negative_flip" for pair in pairs)
    right = sum(pair.old.score == 1.0 for pair in pairs)
    return summarise(pairs, nfr_given_correct=wilson(worse, right)), pairs


def judged() -> list[Pair]:
    """A pairwise judge that saw both orders, agreed once, disagreed with itself once, and failed once."""
    both = (
        {"order": "old_first", "winner": "old", "reason": "The old answer names the cause."},
        {"order": "new_first", "winner": "old", "reason": "Answer B is complete; answer A refuses."},
    )
    split = ({"order": "old_first", "winner": "old"}, {"order": "new_first", "winner": "new", "reason": "Shorter."})
    old = Answer(completion="Ice floats because it is less dense than water.")
    new = Answer(completion="I cannot help with that.")
    return [
        Pair("ice", 0, old, new, "negative_flip", "Why does ice float?", ("knowledge",), None, both),
        Pair("ice", 1, old, new, "inconsistent", "Why does ice float?", ("knowledge",), None, split),
        Pair("odd", 0, old, Answer(error="timed out after 60 s"), "invalid", "Why?", ()),
        Pair("win", 0, new, old, "positive_flip", "Why does ice float?", ("knowledge",)),
    ]


def hostile() -> tuple[Comparison, list[Pair]]:
    """Every hostile text in every place that holds text."""
    pairs = [
        Pair(
            id=text,
            repeat=0,
            old=Answer(1.0, f"{text} old", None, rationale=text),
            new=Answer(-1.0, f"{text} new", f"{text} error", rationale=f"{text} because"),
            outcome=outcome,
            prompt=text + " " + "x" * 200,
            categories=(text,),
            verdicts=({"order": "old_first", "winner": "old", "reason": text},),
        )
        for text in HOSTILE
        for outcome in ("negative_flip", "positive_flip", "inconsistent", "invalid")
    ]
    everything = " ".join(HOSTILE)
    comparison = summarise(
        pairs,
        old=everything,
        new=everything,
        reason=everything,
        provenance={everything: everything, "command": everything, "inputs": {everything: [everything]}},
        severity={everything: everything},
    )
    return comparison, pairs


@pytest.fixture(scope="session")
def hostile_texts() -> tuple[str, ...]:
    return HOSTILE


@pytest.fixture(scope="session")
def hostile_example() -> tuple[Comparison, list[Pair]]:
    return hostile()


@pytest.fixture(scope="session")
def binary_example() -> tuple[Comparison, list[Pair]]:
    return binary(400)


@pytest.fixture(scope="session")
def judged_pairs() -> list[Pair]:
    return judged()


@pytest.fixture(scope="session")
def make_scored() -> Callable[..., list[Pair]]:
    return scored


@pytest.fixture(scope="session")
def make_comparison() -> Callable[..., Comparison]:
    return summarise
