"""What git says of the folder that is pushed, in the form of the truss CLI's `user_env`."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import kingpost


def user_env(folder: Path) -> dict[str, Any]:
    """The client's environment with `git_info` (null outside a repository)."""
    return {
        "truss_client_version": f"kingpost-{kingpost.__version__}",
        "python_version": platform.python_version(),
        "pydantic_version": "",
        "mypy_version": None,
        "git_info": git_info(folder),
    }


def git_info(folder: Path) -> dict[str, Any] | None:
    """Commit, nearest tag, commits since it, uncommitted changes; None without git or commits."""
    sha = _git(folder, "rev-parse", "HEAD")
    if not sha:
        return None
    tag = _git(folder, "describe", "--tags", "--abbrev=0") or None
    since = _git(folder, "rev-list", f"{tag}..HEAD", "--count") if tag else None
    return {
        "latest_commit_sha": sha,
        "latest_tag": tag,
        "commits_since_tag": int(since) if since else None,
        "has_uncommitted_changes": bool(_git(folder, "status", "--porcelain")),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
