"""What this machine has for replicas: cores, memory, GPUs. Looked at once, at the start."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections import Counter

from kingpost.control.domain import InstanceType
from kingpost.control.instances import CPU_TYPES, for_accelerators, load
from kingpost.control.place import Gpu, Machine
from kingpost.settings import Settings

log = logging.getLogger(__name__)

_NAMES = (
    ("H100 80GB", "H100"), ("H100", "H100"), ("H200", "H200"), ("B200", "B200"), ("B300", "B300"),
    ("A100", "A100"), ("A10G", "A10G"), ("L40S", "L40S"), ("L4", "L4"), ("T4", "T4"),
    ("V100", "V100"), ("RTX PRO 6000", "RTX_PRO_6000"),
)  # fmt: skip
_QUERY = "--query-gpu=index,name,memory.total"
_A100_40GB_MIB = 45_000


def look(settings: Settings) -> Machine:
    """Blocking for as long as `nvidia-smi` takes, where there is one."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        cpu_millis=len(os.sched_getaffinity(0)) * 1000,
        memory_bytes=pages,
        gpus=_gpus(),
        emulate_accelerators=settings.emulate_accelerators,
    )


def instance_types(settings: Settings, machine: Machine) -> tuple[InstanceType, ...]:
    """Those of the operator's file, else the contract's CPU sizes and the GPUs found here."""
    if settings.instance_types is not None:
        return load(settings.instance_types)
    counts = Counter((gpu.name, gpu.memory_mib) for gpu in machine.gpus)
    found = [(name, count, memory) for (name, memory), count in sorted(counts.items())]
    return CPU_TYPES + for_accelerators(found)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """The answer of `nvidia-smi --query-gpu=index,name,memory.total`, as CSV without units.

    A GPU that the contract has no name for keeps its own, without the maker's.
    """
    found = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != 3 or not parts[0].isdigit() or not parts[2].isdigit():
            continue
        index, name, memory = parts
        found.append(Gpu(index=index, name=_name(name, int(memory)), memory_mib=int(memory)))
    return tuple(found)


def _name(name: str, memory_mib: int) -> str:
    for part, ours in _NAMES:
        if part in name:
            return "A100_40GB" if ours == "A100" and memory_mib < _A100_40GB_MIB else ours
    return name.removeprefix("NVIDIA ").replace("GeForce ", "").replace(" ", "_")


def _gpus() -> tuple[Gpu, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        done = subprocess.run(
            [program, _QUERY, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("nvidia-smi failed; no GPU is used", extra={"error": str(error)})
        return ()
    return parse_gpus(done.stdout)
