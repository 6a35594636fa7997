"""What a platform leaves on the machine: processes, namespaces, mounts, control groups, links."""

from __future__ import annotations

import subprocess
from pathlib import Path


def of(data: Path) -> dict[str, list[str]]:
    """Everything that still belongs to the platform with this data folder, by kind."""
    return {
        "processes": _processes(str(data)),
        "mounts": [
            line for line in Path("/proc/mounts").read_text().splitlines() if str(data) in line
        ],
        "replica folders": sorted(p.name for p in (data / "replicas").glob("*")),
    }


def namespaces() -> set[str]:
    done = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in done.stdout.splitlines() if line}


def _processes(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line and "pytest" not in line:
            found.append(f"{entry.name} {line[:120]}")
    return found
