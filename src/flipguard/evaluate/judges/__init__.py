"""Ways to grade answers, one file each, with `open_judge(model) -> Scorer`; `model` is `--model`, or None."""

JUDGES = ("exact_match", "reward_model")
