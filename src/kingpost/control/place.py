"""Whether this machine has room for one more replica, and which GPUs it gets. Pure.

GPUs and memory are counted: memory limits may add up to `memory_overcommit` times what the
machine has, since a limit is rarely reached. Cores are shared by weight, so cores only bound what
a single replica may ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kingpost.build.base import Accelerator
from kingpost.control.domain import Replica, ReplicaState

MEMORY_OVERCOMMIT = 2.0


@dataclass(frozen=True)
class Gpu:
    """`index` is what CUDA_VISIBLE_DEVICES takes; `name` the contract's, such as `L4`."""

    index: str
    name: str
    memory_mib: int


@dataclass(frozen=True)
class Machine:
    cpu_millis: int
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()
    memory_overcommit: float = MEMORY_OVERCOMMIT
    emulate_accelerators: bool = False


@dataclass(frozen=True)
class Placed:
    gpus: tuple[str, ...] = ()
    emulated: bool = False


@dataclass(frozen=True)
class NoRoom:
    """`reason` says what is missing. `never` means that waiting can't help on this machine."""

    reason: str
    never: bool = False


def place(
    machine: Machine,
    replicas: Sequence[Replica],
    *,
    cpu_millis: int,
    memory_bytes: int,
    accelerator: Accelerator | None,
) -> Placed | NoRoom:
    """Room for one replica beside those that hold a share now."""
    holding = [r for r in replicas if r.state is not ReplicaState.ENDED]
    if cpu_millis > machine.cpu_millis:
        return NoRoom(
            f"it asks for {cpu_millis / 1000:g} cores and this machine has "
            f"{machine.cpu_millis / 1000:g}",
            never=True,
        )
    if memory_bytes > machine.memory_bytes:
        return NoRoom(
            f"it asks for {_gib(memory_bytes)} of memory and this machine has "
            f"{_gib(machine.memory_bytes)}",
            never=True,
        )
    allowed = machine.memory_bytes * machine.memory_overcommit
    used = sum(r.memory_bytes for r in holding)
    if used + memory_bytes > allowed:
        return NoRoom(
            f"it waits for {_gib(memory_bytes)} of memory; {_gib(used)} of {_gib(int(allowed))} "
            "are given to other replicas"
        )
    return _place_accelerator(machine, holding, accelerator)


def _place_accelerator(
    machine: Machine, holding: Sequence[Replica], accelerator: Accelerator | None
) -> Placed | NoRoom:
    if accelerator is None:
        return Placed()
    wanted = f"{accelerator.count} x {accelerator.name}"
    of_kind = [gpu for gpu in machine.gpus if gpu.name == accelerator.name]
    if len(of_kind) < accelerator.count:
        if machine.emulate_accelerators:
            return Placed(emulated=True)
        have = ", ".join(sorted({gpu.name for gpu in machine.gpus})) or "no GPU"
        return NoRoom(
            f"it asks for {wanted} and this machine has {have}. Run it where there is one, or "
            "start the platform with --emulate-accelerators to run it on the CPU",
            never=True,
        )
    taken = {index for replica in holding for index in replica.gpus}
    free = [gpu.index for gpu in of_kind if gpu.index not in taken]
    if len(free) < accelerator.count:
        return NoRoom(f"it waits for {wanted}; {len(free)} are free")
    return Placed(gpus=tuple(free[: accelerator.count]))


def _gib(count: int) -> str:
    return f"{count / 1024**3:.1f} GiB"
