"""The picture of the report: small, and drawn by its script from the report as it is."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
LARGEST = 200_000


def size_of(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return len(content), struct.unpack(">II", content[16:24])


def test_the_picture_is_small_and_the_readme_shows_it():
    size, (width, height) = size_of(DOCS / "report.png")
    assert size < LARGEST
    assert (width, height) > (600, 600)
    assert "](docs/report.png)" in (DOCS.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_script_draws_the_picture(tmp_path):
    pytest.importorskip("playwright.sync_api", reason="needs playwright")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    if not os.environ.get("CHROMIUM") and not any(map(shutil.which, names)):
        pytest.skip("needs a Chromium on the PATH, or named by CHROMIUM")
    target = tmp_path / "report.png"
    ran = subprocess.run(
        [sys.executable, DOCS / "report_png.py", target], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("✗ FAIL: base-7b → aligned-7b")
    size, shape = size_of(target)
    assert (size < 2 * LARGEST, shape) == (True, size_of(DOCS / "report.png")[1])  # fonts differ between machines
