"""`docs/requirements.md` names only what exists: files, tests, make targets, commands, options."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from tests.support.documents import ROOT, problem_of_command

DOCUMENT = ROOT / "docs" / "requirements.md"
SUBJECTS = {
    "deployer",
    "agent container",
    "gate",
    "autoscaling",
    "metrics",
    "tenants and budgets",
    "container engine",
}
FIELDS = ("Status", "Files", "Command", "Tests", "Differs")

_HEAD = re.compile(r"\*\*(R(\d+)\.(\d+))\*\* ")
_FIELD = re.compile(rf"({'|'.join(FIELDS)}): ")
_STATUS = re.compile(r"met|(partly|not built yet) \(([^)]+)\)")
_CODE = re.compile(r"`([^`]+)`")


@dataclass
class Requirement:
    part: int
    number: int
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"R{self.part}.{self.number}"

    def codes(self, name: str) -> list[str]:
        return _CODE.findall(self.fields.get(name, ""))


def parse(text: str) -> list[Requirement]:
    """Paragraphs that begin with a number; a field begins a line and runs to the next."""
    found: list[Requirement] = []
    for block in re.split(r"\n\s*\n", text):
        head = _HEAD.match(block)
        if head is None:
            continue
        requirement = Requirement(int(head[2]), int(head[3]))
        name = ""
        for line in block.splitlines()[1:]:
            start = _FIELD.match(line)
            if start is not None:
                name = start[1]
                assert name not in requirement.fields, f"{head[1]} has {name} twice"
                requirement.fields[name] = line[start.end() :]
            elif name:
                requirement.fields[name] += " " + line
        found.append(requirement)
    return found


REQUIREMENTS = parse(DOCUMENT.read_text())


@cache
def functions_in(path: Path) -> frozenset[str]:
    """The names of the test functions that a file defines."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.walk(ast.parse(path.read_text()))
    return frozenset(node.name for node in tree if isinstance(node, functions))


def problem_of_test(name: str) -> str | None:
    path, mark, function = name.partition("::")
    file = ROOT / path
    if not path.startswith("tests/") or not file.is_file():
        return f"there is no file {path}"
    if not mark or not function.startswith("test_") or function not in functions_in(file):
        return f"{path} defines no test {function!r}"
    return None


def test_numbers_have_no_gap_and_no_double() -> None:
    for part in (1, 2):
        numbers = [r.number for r in REQUIREMENTS if r.part == part]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) > 15
    assert {r.part for r in REQUIREMENTS} == {1, 2}
    assert len(REQUIREMENTS) == len(re.findall(r"\*\*R\d", DOCUMENT.read_text())) - 2


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda r: r.name)
def test_what_is_named_exists(requirement: Requirement) -> None:
    status = _STATUS.fullmatch(requirement.fields.get("Status", "").strip())
    assert status is not None, f"no status: {requirement.fields}"
    if status[2] is not None:
        assert status[2] in SUBJECTS
    if status[1] != "not built yet":
        assert requirement.codes("Files")
        assert requirement.codes("Tests")
    else:
        assert not requirement.codes("Tests")
    for file in (*requirement.codes("Files"), *requirement.codes("Differs")):
        if "/" in file and not file.startswith(("/", "sync/")) and "<" not in file:
            assert (ROOT / file).is_file(), file
    for problem in map(problem_of_test, requirement.codes("Tests")):
        assert problem is None, problem
    for problem in map(problem_of_command, requirement.codes("Command")):
        assert problem is None, problem


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tests/unit/none.py::test_x", "no file"),
        ("src/kingpost/errors.py::test_x", "no file"),
        ("tests/unit/test_contract.py::test_nothing_like_it", "no test"),
        ("tests/unit/test_contract.py", "no test"),
    ],
)
def test_a_test_that_is_not_there_is_noticed(name: str, words: str) -> None:
    assert words in (problem_of_test(name) or "")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("make nothing", "no target"),
        ("make", "no target"),
        ("kingpost nothing", "no command"),
        ("kingpost", "needs a command"),
        ("kingpost push --nothing", "no ['--nothing']"),
        ("bash x", "neither"),
    ],
)
def test_a_command_that_is_not_there_is_noticed(command: str, words: str) -> None:
    assert words in (problem_of_command(command) or "")
    assert problem_of_command("kingpost env set --min-replica") is None
    assert problem_of_command("kingpost env") is None
    assert problem_of_command("make test") is None
