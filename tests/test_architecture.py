"""The house stands as ARCHITECTURE.md draws it: imports in one direction, small files, nothing that probes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "flipguard"
FOUNDATION = {
    "errors",
    "records",
    "files",
    "progress",
    "weights",
    "locks",
    "functions",
    "scorers",
    "processes",
    "remedies",
}
MAY_IMPORT = {
    "errors": set(),
    "records": set(),
    "files": {"errors", "records", "remedies"},
    "remedies": set(),
    "processes": set(),
    "progress": {"processes"},
    "weights": {"errors", "records"},
    "locks": {"errors"},
    "functions": {"errors"},
    "scorers": {"errors", "records", "functions"},
    "objective": set(),
    "rewards": FOUNDATION,
    "evaluate": FOUNDATION | {"rewards"},  # within judges/reward_model.py alone, see below
    "curves": {"errors", "records", "files"},
    "integrations": {"errors", "records", "files", "objective"},
    "train": FOUNDATION | {"objective", "rewards", "integrations"},
    "sandbox": FOUNDATION,
}
EVERYTHING = {
    "cli",
    "demo",
    "options",
    "output",
    "__init__",
    "__main__",
}  # the verbs
CEILING = 300
FUNCTION_CEILING = 60

FILES = sorted(SOURCE.rglob("*.py"))


def room(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path):
    """Rooms of ours that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "flipguard" and len(parts) > 1 and parts[1] != "__version__":
                yield parts[1]


def names_in(node):
    """The module a node imports from, and the names it imports."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        yield node.module


def test_every_room_is_on_the_map():
    assert {room(path) for path in FILES} == MAY_IMPORT.keys() | EVERYTHING


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_follow_the_arrows(path):
    if room(path) in EVERYTHING:
        return
    strangers = set(imported(path)) - {room(path)} - MAY_IMPORT[room(path)]
    assert not strangers, f"{path} imports {strangers}"


def test_nobody_imports_the_command_line():
    callers = {room(path) for path in FILES if {"cli", "demo", "options"} & set(imported(path))}
    assert callers <= {"cli", "demo", "__main__"}


def test_only_the_judge_that_asks_a_reward_model_knows_rewards():
    askers = {path.name for path in (SOURCE / "evaluate").rglob("*.py") if "rewards" in set(imported(path))}
    assert askers <= {"reward_model.py"}


def test_report_views_compute_nothing():
    for path in (SOURCE / "evaluate" / "report").rglob("*.py"):
        names = {alias for node in ast.walk(ast.parse(path.read_text())) for alias in names_in(node)}
        assert not {"stats", "flipguard.evaluate.stats"} & names, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= CEILING, "split it by what it is about"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < FUNCTION_CEILING, f"{node.name} is too long"


def test_no_file_is_a_drawer_for_odds_and_ends():
    assert not [path for path in FILES if path.stem in {"utils", "helpers", "misc", "common"}]


def test_nothing_asks_an_object_whether_it_has_an_attribute():
    for path in FILES:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
        assert "hasattr" not in names, path


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("flipguard", {"orjson", "torch", "numpy"}),
        ("flipguard.cli", {"torch", "transformers", "numpy", "jinja2"}),
        ("flipguard.evaluate.compare", {"torch", "transformers", "numpy", "scipy", "jinja2"}),
        ("flipguard.evaluate.generate", {"torch", "transformers", "numpy"}),
        ("flipguard.evaluate.report.html", {"torch", "numpy"}),
    ],
)
def test_the_measuring_half_loads_nothing_heavy(module, heavy):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not heavy & set(loaded)
