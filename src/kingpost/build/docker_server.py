"""A Truss with a server of its own: which program it starts, and how its paths are called."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kingpost import contract
from kingpost.build.config import DockerServer
from kingpost.errors import BuildFailedError

SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_SEPARATORS = frozenset({"&&", "||", ";", "|", "&", "\n"})
_BUILTIN_WORDS = """
cd export set unset umask ulimit trap source . : eval test [ true false echo wait read shift
if then else elif fi for while until do done case esac { } ( ) !
"""
_BUILTINS = frozenset(_BUILTIN_WORDS.split())
_PREFIXES = frozenset({"exec", "nohup", "time", "command", "nice"})
_SHELLS = frozenset({"sh", "bash", "dash"})
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


@dataclass(frozen=True)
class Inside:
    """Where programs are looked for inside, in order, and how such a path is found on the host."""

    path: tuple[str, ...]
    cwd: str
    on_host: Callable[[str], Path | None]


def rewrites(server: DockerServer) -> dict[str, str]:
    """Truss's own paths to the server's, as truss's proxy in front of a real image maps them."""
    return {
        contract.TRUSS_LIVE_PATH: server.live_path,
        contract.TRUSS_READY_PATH: server.ready_path,
        contract.TRUSS_PREDICT_PATH: server.predict_path,
        contract.TRUSS_WEBSOCKET_PATH: server.predict_path,
    }


def programs(command: str) -> list[str]:
    """The programs that a shell command starts, as far as its text tells; variables are left out.

    Looks into `sh -c '...'` too. A command that no shell could read gives none.
    """
    try:
        lexer = shlex.shlex(command, posix=True, punctuation_chars="();|&")
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError:
        return []
    found: list[str] = []
    for simple in _simple_commands(words):
        found += _program_of(simple)
    return found


def check_start_command(server: DockerServer, inside: Inside, image: str | None) -> None:
    """Raise `BuildFailedError` when the first program that the command names is not there."""
    named = programs(server.start_command)
    if not named or resolve(named[0], inside) is not None:
        return
    origin = f"the image {image}" if image else "a base image"
    raise BuildFailedError(
        f"docker_server.start_command: the program {named[0]!r} was not found in the Python "
        f"environment, the system path or the Truss. It would come with {origin}, and the process "
        "engine runs no images: add what provides it to `requirements`, tell where it is installed "
        "on this machine (`kingpost images map IMAGE PREFIX`), or use the container engine."
    )


def resolve(program: str, inside: Inside) -> Path | None:
    """The file on the host that a program's name leads to inside; None when there is none."""
    if "/" in program:
        whole = program if program.startswith("/") else os.path.join(inside.cwd, program)
        places: Sequence[str] = [os.path.normpath(whole)]
    else:
        places = [f"{folder}/{program}" for folder in inside.path]
    for place in places:
        found = inside.on_host(place)
        if found is not None and found.exists():
            return found
    return None


def _simple_commands(words: list[str]) -> list[list[str]]:
    commands: list[list[str]] = [[]]
    for word in words:
        if word in _SEPARATORS or set(word) <= set("();|&"):
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def _program_of(words: list[str]) -> list[str]:
    while words and (_ASSIGNMENT.fullmatch(words[0]) or words[0] in _PREFIXES):
        words = words[1:]
    if words and words[0].rsplit("/", 1)[-1] == "env":
        words = [word for word in words[1:] if not _ASSIGNMENT.fullmatch(word)]
    if not words or words[0] in _BUILTINS or "$" in words[0] or words[0].startswith("-"):
        return []
    if (
        words[0].rsplit("/", 1)[-1] in _SHELLS
        and len(words) > 2
        and re.fullmatch(r"-\w*c", words[1])
    ):
        return programs(words[2]) or [words[0]]
    return [words[0]]
