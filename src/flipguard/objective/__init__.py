"""The maths: pure functions on tensors, each with its equation number."""
