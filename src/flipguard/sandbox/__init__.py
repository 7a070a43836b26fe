"""A small world whose true reward is known, to watch alignment break things and the guard prevent it."""
