"""The command tree: light to import, its help true, every error one message."""

import importlib
import json
import subprocess
import sys

import click
import pytest

from kingpost.cli import failure
from kingpost.cli.root import COMMANDS, root
from kingpost.errors import ForbiddenError, KingpostError, NotSupportedError, UnavailableError

HEAVY = ("httpx", "rich", "sqlalchemy", "yaml", "msgspec", "starlette", "asyncio", "cryptography")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_says_what_the_command_says(name: str) -> None:
    module, _, attribute = COMMANDS[name].target.partition(":")
    command = getattr(importlib.import_module(f"kingpost.cli.{module}"), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.get_short_help_str(200) == COMMANDS[name].help


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["push", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from kingpost.cli.failure import run; from kingpost.cli.root import root; "
        f"code = run(root, {arguments!r}); print(sorted(sys.modules), file=sys.stderr); "
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stderr
    assert [name for name in HEAVY if f"'{name}'" in modules] == []


def test_a_command_that_does_not_exist_names_the_nearest(kingpost) -> None:
    ran = kingpost("psuh")
    assert ran.exit_code == 2
    assert "Did you mean 'push'" in ran.err


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (ForbiddenError("no"), 1),
        (NotSupportedError("not yet"), 1),
        (UnavailableError("later"), 3),
        (KingpostError("broken"), 3),
        (click.UsageError("wrong"), 2),
        (click.exceptions.Abort(), 130),
        (KeyboardInterrupt(), 130),
        (FileNotFoundError(2, "No such file or directory", "x"), 1),
        (RuntimeError("surprise"), 1),
    ],
)
def test_exit_codes(error: BaseException, exit_code: int) -> None:
    explained = failure.explain(error)
    assert explained.exit_code == exit_code
    assert explained.message
    assert "Traceback" not in explained.message


def test_errors_are_json_when_asked(kingpost) -> None:
    ran = kingpost("push", "/nowhere", "--json")
    assert ran.exit_code == 1
    assert json.loads(ran.err)["code"] == "VALIDATION_ERROR"
    assert ran.out == ""


def test_json_after_truss_is_not_ours() -> None:
    assert failure.wants_json(["push", "--json"])
    assert not failure.wants_json(["truss", "push", "--json"])
    assert not failure.wants_json(["predict", "--", "--json"])


def test_every_command_of_the_tree_has_help() -> None:
    def check(command: click.Command, path: str) -> None:
        assert command.help, path
        assert command.get_short_help_str(), path
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                check(child, f"{path} {name}")

    check(root, "kingpost")
