"""Ways to get answers from a model, one file each."""
