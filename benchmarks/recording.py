"""Rows of benchmarks: what each says of where it was made, and how it joins its file."""

import csv
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent


def made() -> dict[str, str]:
    """The day, the commit and the device."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=HERE
    ).stdout.strip()
    device = f"{os.cpu_count()} x {platform.machine()}"
    return {"date": datetime.now(UTC).date().isoformat(), "commit": commit, "device": device}


def append(path: Path, row: Mapping[str, object]) -> None:
    """Add a row to a file, which gets its header with the first, and print it."""
    with path.open("a+", newline="", encoding="utf-8") as file:
        file.seek(0)
        header = next(csv.reader(file), None)
        if header not in (None, list(row)):
            raise SystemExit(f"{path}: has other columns than this row: {', '.join(header)}.")
        writer = csv.DictWriter(file, list(row))
        if header is None:
            writer.writeheader()
        writer.writerow(row)
    print(dict(row), flush=True)
