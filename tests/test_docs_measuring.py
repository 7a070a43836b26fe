"""What docs/measuring.md shows is what comes out, on the public data it speaks of."""

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from flipguard.evaluate.report import formatting

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
PAGE = (ROOT / "docs" / "measuring.md").read_text(encoding="utf-8")
LEFT_OUT = "…"

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the public data sets are not beside this project")


def sessions():
    """Each command of the page with the lines that it shows of the output."""
    commands = []
    for block in re.findall("```console\n(.*?)```", PAGE, flags=re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                commands.append((line[2:], []))
            else:
                commands[-1][1].append(line)
    return commands


@pytest.fixture
def place(tmp_path):
    """A folder with the data, the page's program and `flipguard` on the PATH."""
    (tmp_path / "data").symlink_to(DATA)
    (program,) = re.findall("```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "runs.py").write_text(program, encoding="utf-8")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "flipguard").write_text(
        f"#!{sys.executable}\nimport sys\nfrom flipguard.cli import main\nsys.exit(main())\n"
    )
    (programs / "flipguard").chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    return tmp_path


def outputs(place, commands):
    """What each command printed, run one after the other in one shell."""
    mark = "=== next command ==="
    script = "".join(f"{command}\nlast=$?; echo '{mark}'; (exit $last)\n" for command in commands)
    environment = {**os.environ, "PATH": f"{place / 'programs'}:{os.environ['PATH']}"}
    environment.pop("GITHUB_STEP_SUMMARY", None)
    ran = subprocess.run(
        ["bash", "-c", script], cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return [text.strip("\n").splitlines() for text in ran.stdout.split(f"{mark}\n")[:-1]]


def shows(shown, printed):
    """Whether `shown` is `printed` with the lines left out that it says."""
    at = 0
    for before, line in pairwise([None, *shown]):
        if line == LEFT_OUT:
            continue
        if before == LEFT_OUT:
            at = printed.index(line, at) if line in printed[at:] else len(printed)
        if at >= len(printed) or printed[at] != line:
            return False
        at += 1
    return at == len(printed) or (bool(shown) and shown[-1] == LEFT_OUT)


@pytest.mark.slow
def test_every_command_prints_what_the_page_shows(place):
    told = sessions()
    printed = outputs(place, [command for command, _ in told])
    assert len(printed) == len(told) > 15
    wrong = [command for (command, shown), lines in zip(told, printed, strict=True) if not shows(shown, lines)]
    assert wrong == []


def test_a_line_that_differs_is_noticed():
    assert shows(["a", LEFT_OUT, "c"], ["a", "b", "c"])
    assert shows(["a", LEFT_OUT], ["a", "b"])
    for shown in (["a", LEFT_OUT, "d"], ["a", "c"], ["a", "b"], [LEFT_OUT, "b"], ["c", LEFT_OUT, "a"], []):
        assert not shows(shown, ["a", "b", "c"])


def test_the_page_has_the_facts_that_an_independent_script_counted():
    facts = json.loads((DATA / "gsm8k" / "reference_facts.json").read_bytes())
    for systems, fact in facts.items():
        old, new = systems.split("->")
        said = PAGE.split(f"runs.jsonl#{old} runs.jsonl#{new}\n")[1].split("\n$ ")[0].split("```")[0]
        assert f"{fact['nf']} of {fact['n']:,}\n" in said
        assert f"{fact['pf']} of {fact['n']:,}\n" in said
        assert formatting.equation(fact["mcnemar_exact_p"]) in said
        assert f"{formatting.percent(fact['acc_old'])} [" in said
        assert f"→ {formatting.percent(fact['acc_new'])} [" in said
    for words in ("18 of 73", "20 of 73", "8 ties, 27 inconsistent", "53.4 % [", "27.4 % ["):
        assert words in PAGE
    assert {0, 1, 2, 3, 4} == {int(code) for code in re.findall(r"^\$ echo \$\?\n(\d)$", PAGE, flags=re.MULTILINE)}
