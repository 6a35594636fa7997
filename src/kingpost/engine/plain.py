"""Without a sandbox: a spec whose paths are those of the inside, told in the host's paths.

What the sandbox shows at `/app` lies elsewhere on the host, so each mention of a target at the
beginning of a path is replaced by its source. `{port}` and the spec's own port in the variables
below stand for the port that was chosen, since plain processes share the host's ports.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from kingpost.engine.base import Bind, Overlay

PORT_VARIABLES: Final = ("PORT", "INFERENCE_SERVER_PORT")
SECRET_PREFIX: Final = "TRUSS_SECRET_"  # noqa: S105 - a prefix of names
MARK: Final = "KINGPOST_REPLICA"
"""The variable by which plain processes are found again when their shim is gone."""


class Paths:
    """Rewrites text by (target inside, path on the host); the longest target wins."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._to = {target.rstrip("/"): source for target, source in pairs}
        targets = sorted(map(re.escape, self._to), key=len, reverse=True)
        self._pattern = (
            re.compile(rf"(?<![\w./-])(?:{'|'.join(targets)})(?![\w.-])") if targets else None
        )

    def host(self, text: str) -> str:
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: self._to[found.group()], text)


def pairs_of(
    binds: Sequence[Bind], overlays: Sequence[Overlay], extra: Mapping[str, str]
) -> list[tuple[str, str]]:
    return [
        *((bind.target, bind.source) for bind in binds),
        *((overlay.target, overlay.upper) for overlay in overlays),
        *extra.items(),
    ]


def plain_environment(
    env: Mapping[str, str], paths: Paths, *, port: int, asked: int, secrets: Mapping[str, str]
) -> dict[str, str]:
    """The variables with host paths, the port that was chosen, and the secrets truss looks for."""
    told = {name: paths.host(value).replace("{port}", str(port)) for name, value in env.items()}
    for name in PORT_VARIABLES:
        if told.get(name, str(asked)) == str(asked):
            told[name] = str(port)
    return told | {f"{SECRET_PREFIX}{name}": value for name, value in secrets.items()}


def fill(overlay: Overlay) -> None:
    """Without mounts an overlay is a copy: its lower folders in `upper`, made once."""
    done = Path(overlay.work) / "copied"
    if done.exists():
        return
    for lower in reversed(overlay.lower):
        shutil.copytree(lower, overlay.upper, symlinks=True, dirs_exist_ok=True)
    Path(overlay.work).mkdir(parents=True, exist_ok=True)
    done.touch()
