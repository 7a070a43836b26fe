"""How training went, from what the runs logged: flip rate, KL, rewards, loss as small multiples."""
