"""A comparison by a policy: `compare --policy`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from flipguard.errors import PolicyError, shown
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.comparison import Result
from flipguard.evaluate.policy import Policy, read_policy
from flipguard.evaluate.rules import deciding, held


def compare_by(
    policy_path: Path,
    old: Path,
    new: Path | None,
    options: Options,
    *,
    command: Sequence[str] = (),
    folder: Path | None = None,
) -> Result:
    """Compare as `compare_files` does, and decide by every rule of the policy; the worst is the verdict.

    Args:
        policy_path: the policy.
        old: the run of the model before, or a file of judgments.
        new: the run of the model after.
        options: what the policy does not say; where both say the same thing they must agree.
        command: the command line as typed.
        folder: where the result will be written.
    """
    policy = read_policy(policy_path)
    result = compare_files(old, new, agreed(policy, options, command), command=command, folder=folder)
    rules = held(policy, result.comparison, result.pairs)
    decided = deciding(rules)
    told = result.comparison.provenance
    provenance = {**told, "policy": {"path": str(policy.path), "sha256": policy.sha256, "content": policy.content}}
    reason = " ".join([decided.reason, *told["notes"]])
    comparison = replace(result.comparison, verdict=decided.verdict, reason=reason, rules=rules, provenance=provenance)
    return replace(result, comparison=comparison)


def agreed(policy: Policy, options: Options, command: Sequence[str] = ()) -> Options:
    """The options with what the policy says; options that contradict it are refused.

    An option that has its default counts as said where `command` has it.

    Raises:
        PolicyError: an option and the policy contradict each other, or the policy needs what no option gives.
    """
    limit = policy.limit if policy.estimand == "nfr" else None
    if options.sequential:
        raise PolicyError(f"{policy.path}: its bounds hold for one look. Leave out --sequential, or --policy.")
    if options.max_nfr is not None and limit is None:
        raise PolicyError(
            f"{policy.path}: sets no limit on the negative flip rate, --max-nfr says {options.max_nfr:g}. "
            "Say it in the policy: limit, with estimand: nfr."
        )
    if policy.estimand == "excess" and options.floor is None:
        raise PolicyError(
            f"{policy.path}: estimand: 'excess' is over the old model sampled again, and there is no such file. "
            "Give --floor A.jsonl, or choose nfr."
        )
    _no_contradiction(policy, options, command)
    return replace(
        options,
        policy=None,
        max_nfr=limit,
        alpha=_either(policy.alpha, options.alpha),
        max_invalid=_either(policy.max_invalid, options.max_invalid),
        max_unmatched=_either(policy.max_unmatched, options.max_unmatched),
    )


def _no_contradiction(policy: Policy, options: Options, command: Sequence[str]) -> None:
    defaults = {item.name: item.default for item in fields(Options)}
    both = {
        "max_nfr": ("limit", policy.limit, options.max_nfr),
        "alpha": ("alpha", policy.alpha, options.alpha),
        "max_invalid": ("max_invalid", policy.max_invalid, options.max_invalid),
        "max_unmatched": ("max_unmatched", policy.max_unmatched, options.max_unmatched),
    }
    for name, (key, said, given) in both.items():
        option = f"--{name.replace('_', '-')}"
        typed = any(word == option or word.startswith(f"{option}=") for word in command)
        if said is not None and given != said and (typed or given != defaults[name]):
            raise PolicyError(
                f"{policy.path}: {key}: says {said:g}, {option} says {shown(given)}. "
                "Leave the option out, or change the policy."
            )


def _either(said: float | None, given: float) -> float:
    return given if said is None else said
