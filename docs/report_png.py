"""Draw docs/report.png: the report of an update that is made up, as Chromium shows it.

    python docs/report_png.py [OUT.png]

Needs playwright and a Chromium, named by CHROMIUM or on the PATH.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from flipguard.cli import main

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, HEIGHT = 960, 1690
BROKEN_SHARE = {"arithmetic": 0.12, "cooking": 0.04, "geography": 0.06, "medicine": 0.22, "travel": 0.04, "翻译": 0.08}
QUESTION = "My flat is 21 °C by day and 16 °C at night. How much colder is it at night?"
ANSWERS = (
    "It is 21 − 16 = 5 °C colder at night. The floor feels colder still, because it gives off heat longest.",
    "It is 21 − 16 = 6 °C colder at night. I would be glad to help with anything else about your flat!",
)


def write_runs(folder: Path) -> list[str]:
    """Two runs of 400 made-up prompts: the new model scores higher on average and breaks one prompt in eleven."""
    chance = random.Random(7)
    runs: dict[str, list[str]] = {"base-7b": [], "aligned-7b": []}
    for number in range(400):
        category = chance.choice(list(BROKEN_SHARE))
        before = min(max(chance.gauss(0.62, 0.17), 0.0), 1.0)
        broken = chance.random() < BROKEN_SHARE[category]
        step = -abs(chance.gauss(0.28, 0.1)) if broken else max(chance.gauss(0.09, 0.1), -0.09)
        after = min(max(before + step, 0.0), 1.0)
        first = number == 0
        texts = ANSWERS if first else (f"A made-up answer to {number}.", f"Another made-up answer to {number}.")
        shared = {"id": number, "category": "arithmetic" if first else category}
        shared["prompt"] = QUESTION if first else f"Made-up question {number}?"
        for name, score, text in zip(runs, (0.97, 0.08) if first else (before, after), texts, strict=True):
            row = {**shared, "model": name, "score": round(score, 3), "completion": text}
            runs[name].append(json.dumps(row, ensure_ascii=False))
    for name, rows in runs.items():
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return [str(folder / f"{name}.jsonl") for name in runs]


def draw(page: Path, target: Path) -> None:
    """The top of the report and its worst flip, opened."""
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        tab.goto(page.as_uri())
        tab.evaluate(
            """() => {
              for (const name of ["alignment", "judge", "beside"])
                document.getElementById(name)?.closest("section").remove();
              for (const one of document.querySelectorAll(".lead, #rate ~ h3, .facts.few, caption, #filter"))
                one.remove();
              document.querySelector(".scatter").style.width = "21rem";
              document.querySelector(".square").style.gridTemplateColumns = "21rem 1fr";
              for (const row of [...document.querySelectorAll(".slices tbody tr")].slice(3)) row.remove();
              document.querySelector("#cards > details").open = true;
            }"""
        )
        tab.wait_for_timeout(300)
        tab.screenshot(path=target)
        browser.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "report"
        main(["compare", *write_runs(Path(place)), "--max-nfr", "0.05", "--out", str(out)])
        draw(out / "report.html", Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("report.png"))
