"""Ways to read what other tools wrote, one file each."""
