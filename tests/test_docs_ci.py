"""What docs/ci.md shows is what happens: its policies are read, its workflows and commands are run on small files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flipguard.evaluate.compare import Options
from flipguard.evaluate.gate import EXIT_CODES
from flipguard.evaluate.policy import KEYS, SEVERITY, read_policy

PAGE = (Path(__file__).parent.parent / "docs" / "ci.md").read_text(encoding="utf-8")
FILES = {re.match("# (.+)", text)[1]: text for text in re.findall("```yaml\n(.*?)```", PAGE, flags=re.DOTALL)}
SCRIPTS = re.findall("```bash\n(.*?)```", PAGE, flags=re.DOTALL)
REPORT = {"comparison.json", "flips.jsonl", "report.html", "report.md", "junit.xml"}


def program(folder, name, code):
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{code}")
    path.chmod(0o755)


@pytest.fixture
def project(tmp_path):
    """A folder with the page's files, two runs of 900 prompts, and the programs that the page calls."""
    (tmp_path / "runs").mkdir()
    for name in ("policy.yaml", "excess.yaml"):
        (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    write_runs(tmp_path, broken=6)
    programs = tmp_path / "programs"
    programs.mkdir()
    program(programs, "flipguard", "import sys\nfrom flipguard.cli import main\nsys.exit(main())\n")
    program(programs, "pip", "import sys\nsys.exit(sys.argv[1:] != ['install', 'flipguard'])\n")  # no network in tests
    return tmp_path


def write_runs(folder, *, broken, n=900):
    for name in ("old", "new", "old_again"):
        worse = broken if name == "new" else 0
        rows = [
            {"id": i, "score": 0.3 if i * 7919 % n < worse else 0.9, "completion": f"{name} {i}", "category": topic(i)}
            for i in range(n)
        ]
        (folder / "runs" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def topic(number):
    return ("code", "safety", "chat")[number % 3]


def shell(folder, script):
    environment = {**os.environ, "PATH": f"{folder / 'programs'}:{os.environ['PATH']}"}
    environment["GITHUB_STEP_SUMMARY"] = str(folder / "summary.md")
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert ran.stderr == ""
    return ran.returncode, ran.stdout


def test_the_policies_it_shows_are_policies(project):
    policy = read_policy(project / "policy.yaml")
    assert (policy.limit, policy.slices["safety"].min_n, policy.severity["max"]) == (0.05, 200, 0.8)
    assert read_policy(project / "excess.yaml").estimand == "excess"


def test_it_names_every_key_of_a_policy_and_every_exit_code():
    assert not [key for key in (*KEYS, *SEVERITY, "min_n") if f"`{key}`" not in PAGE]
    assert {int(code) for code in re.findall(r"^\| (\d) \|", PAGE, flags=re.MULTILINE)} == {*EXIT_CODES.values(), 2}
    assert f"`min_n` (default {Options().min_slice})" in PAGE


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "code"), [(6, 0), (300, 1)])
def test_the_workflow_runs_keeps_the_report_and_shows_it(project, broken, code):
    write_runs(project, broken=broken)
    steps = YAML(typ="safe").load(FILES[".github/workflows/flipguard.yml"])["jobs"]["compare"]["steps"]
    codes = [shell(project, step["run"])[0] for step in steps if "run" in step]
    assert codes == [0, code]
    upload = steps[-1]
    assert upload["if"] == "always()"
    assert {path.name for path in (project / upload["with"]["path"]).iterdir()} == REPORT
    assert (project / "report" / "report.md").read_text() in (project / "summary.md").read_text()


@pytest.mark.slow
def test_the_other_pipeline_runs_and_finds_its_test_cases(project):
    job = YAML(typ="safe").load(FILES[".gitlab-ci.yml"])["flipguard"]
    assert [shell(project, line)[0] for line in job["script"]] == [0, 0]
    assert (project / job["artifacts"]["reports"]["junit"]).read_text().count("<testcase ") == 8
    assert job["allow_failure"]["exit_codes"] == EXIT_CODES["inconclusive"]


@pytest.mark.slow
def test_every_shell_example_runs(project):
    told = [shell(project, script) for script in SCRIPTS]
    assert [code for code, _ in told] == [0, 0, 0, 0]
    assert "the update may go out" in told[0][1]
    assert told[1][1].startswith("390 prompts")
    assert "however often one looked" in " ".join(told[2][1].split())
    assert "excess negative flip rate" in told[3][1]


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "n", "code", "says"), [(2, 60, 3, "judge more"), (300, 900, 1, "stop, and read")])
def test_the_shell_example_says_what_to_do(project, broken, n, code, says):
    write_runs(project, broken=broken, n=n)
    ended, printed = shell(project, SCRIPTS[0])
    assert (ended, says in printed) == (code, True)
