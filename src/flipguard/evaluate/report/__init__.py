"""Views of a Comparison: they format, they never compute."""
