"""Where results that are costly to compute are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$FLIPGUARD_CACHE`, by default `flipguard` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FLIPGUARD_CACHE") or Path(home) / "flipguard")
