"""`system_packages`: nothing is installed on the machine; what is missing is named."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence

from kingpost.errors import BuildFailedError

_NAME = re.compile(r"([a-z0-9][a-z0-9+.\-]*)(?::[a-z0-9]+)?(?:[=/].*)?")
_INSTALLED = "install ok installed"


def installed(package: str) -> bool:
    """Whether dpkg has it installed."""
    done = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Status}\n", "--", package],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0 and _INSTALLED in done.stdout


def check(packages: Sequence[str], is_installed: Callable[[str], bool] = installed) -> list[str]:
    """The names, all installed. Raises `BuildFailedError` with the apt line that is missing."""
    if not packages:
        return []
    if is_installed is installed and shutil.which("dpkg-query") is None:
        raise BuildFailedError(
            "system_packages: this machine has no dpkg, so they can't be checked. Take them out of "
            "config.yaml if what they provide is installed."
        )
    names = [_name(package) for package in packages]
    missing = [name for name in names if not is_installed(name)]
    if missing:
        raise BuildFailedError(
            f"system_packages: not installed on this machine: {', '.join(missing)}. The process "
            "engine installs no system packages; run on it: "
            f"apt-get install -y {' '.join(missing)}"
        )
    return names


def _name(package: str) -> str:
    match = _NAME.fullmatch(package.strip())
    if match is None:
        raise BuildFailedError(f"system_packages: {package!r} is not a package's name.")
    return match.group(1)
