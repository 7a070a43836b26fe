"""How often is our refusal detector right? Writes refusal_detector.csv.

People's labels of real answers in refusal_labels.csv, made by reading before the detector was asked: `refusal` says
that it will not or cannot do what was asked; `evasion` asks back, does not know or changes the subject; the rest
answers. `drawn` says how an answer came into the sample: `plain` and `negative` at random among those without and with
a negation or an apology, `likely` among those with a typical word of refusal. Shares hold for the sample, not for all
answers. The texts stay where they are, in ../shared/data; labels name them by file, row, key and SHA-256. The detector
may be improved by the development half; the figure to quote is that of the held-out one. `--missed` shows where it
errs in the development half.
"""

import csv
import gzip
import hashlib
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from flipguard.evaluate.refusing import refuses
from flipguard.evaluate.stats import proportion

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared" / "data"
FIELDS = ["date", "commit", "python", "language", "split", "figure", "k", "n", "value", "low", "high"]


def main() -> None:
    if not DATA.exists():
        print(f"{DATA} is not there: nothing measured")
        return
    labels = list(csv.DictReader((HERE / "refusal_labels.csv").open(newline="", encoding="utf-8")))
    told = [(row, text, refuses(text)) for row, text in zip(labels, texts(labels), strict=True)]
    if "--missed" in sys.argv:
        for row, text, said in told:
            if row["split"] == "development" and said != (row["label"] == "refusal"):
                print(
                    row["language"],
                    row["label"],
                    "said" if said else "not said",
                    " ".join(text.split())[:240],
                    sep="\t",
                )
        return
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True)
    fixed = (datetime.now(UTC).date().isoformat(), commit.stdout.strip() or "none", platform.python_version())
    with (HERE / "refusal_detector.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        for language in ("en", "zh"):
            for split in ("development", "held-out"):
                part = [
                    (row["label"], said)
                    for row, _, said in told
                    if (row["language"], row["split"]) == (language, split)
                ]
                for figure, k, n in figures(part):
                    share = proportion(k, n)
                    numbers = [f"{end:.3f}" if n else "" for end in (share.value or 0.0, share.low, share.high)]
                    writer.writerow([*fixed, language, split, figure, k, n, *numbers])
                    print(language, split, figure, f"{k} of {n}", *numbers, sep="\t")


def figures(part: list[tuple[str, bool]]) -> Iterator[tuple[str, int, int]]:
    """Counts behind precision, recall, and the share of evasions and answers that are called refusals."""
    yield "precision", sum(said and label == "refusal" for label, said in part), sum(said for _, said in part)
    for figure, kind in (
        ("recall", "refusal"),
        ("evasions called refusals", "evasion"),
        ("answers called so", "answer"),
    ):
        yield figure, sum(said for label, said in part if label == kind), sum(label == kind for label, _ in part)


def texts(labels: list[dict[str, str]]) -> Iterator[str]:
    """The labelled answers, each checked against its hash."""
    files: dict[str, list[dict]] = {}
    for label in labels:
        path = label["file"]
        if path not in files:
            with (gzip.open if path.endswith(".gz") else open)(DATA / path, "rt", encoding="utf-8") as lines:
                files[path] = [json.loads(line) for line in lines]
        text = answer(files[path][int(label["row"])], label["key"])
        if not hashlib.sha256(text.encode()).hexdigest().startswith(label["sha256"]):
            sys.exit(f"{path}, row {label['row']}, {label['key']}: not the text that was labelled")
        yield text


def answer(row: dict, key: str) -> str:
    """The model's last words: of a transcript, of one side of a judged pair, or a field."""
    if key in ("A", "B"):
        bounds = rf"\[The Start of Assistant {key}'s Answer\]\n(.*?)\n\[The End"
        found = re.search(bounds, row["g1_user_prompt"], re.DOTALL)
        return found[1].strip() if found else ""
    value = row[key]["value"] if isinstance(row[key], dict) else row[key]
    return value.split("\n\nAssistant:")[-1].strip()


if __name__ == "__main__":
    main()
