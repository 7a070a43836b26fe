"""Who says how good an answer is: (prompt, completion) -> a number. One file per kind of scorer.

`KINDS` are the values of `reward.kind` in a recipe and the files of this folder; `open_reward` finds the kind by
looking. Whatever the kind, the result is a `Scorer`: training and judging call it alike.
"""

KINDS = ("classifier", "text_pair", "regression_head", "endpoint", "function")
