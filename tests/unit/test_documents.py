"""What the documents tell a reader to type or to open exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.support.documents import ROOT, problem_of_command

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_HERE = re.compile(r"<<'EOF'.*?^EOF$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:kingpost|make) [a-z][^`]*)`")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def commands(text: str) -> list[str]:
    """Of kingpost and make: the lines of shell blocks, and what stands between backticks."""
    found = []
    for block in _BLOCK.findall(text):
        lines = _HERE.sub("", block).replace("\\\n", " ").splitlines()
        for line in lines:
            words = shlex.split(line, comments=True)
            if words and words[0].rsplit("/", 1)[-1] in {"kingpost", "make"}:
                found.append(" ".join([words[0].rsplit("/", 1)[-1], *words[1:]]))
    return found + [" ".join(text.split()) for text in _INLINE.findall(text)]


def as_checked(command: str) -> str:
    """Without what is not ours: arguments of truss, variables of make, ellipses."""
    program, *words = command.split()
    if words[:1] == ["truss"]:
        words = words[:1]
    if program == "make":
        words = [word for word in words if "=" not in word]
    return " ".join([program, *(word for word in words if word != "...")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_is_typed_exists(document: Path) -> None:
    for command in commands(document.read_text()):
        assert problem_of_command(as_checked(command)) is None, command


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in _LINK.findall(document.read_text()):
        assert (document.parent / target).exists(), target


def test_commands_are_found() -> None:
    text = "`kingpost nothing` and\n```sh\n/opt/bin/kingpost push x \\\n  --wait # y\nls\n```\n"
    assert commands(text) == ["kingpost push x --wait", "kingpost nothing"]
    found = commands((ROOT / "README.md").read_text())
    assert "kingpost push hello --wait" in found
    assert "make demo PORT=8001" in found
