"""Spend the compute: preference training with the guard."""
