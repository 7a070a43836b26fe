"""Ways to grade answers, one file each."""
