"""Ways to get answers from a model, one file each; `flipguard.evaluate.engine` says what an engine is."""

ENGINES = ("transformers",)
