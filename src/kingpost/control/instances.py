"""Instance types: the list that this machine offers, and which one a config's resources need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from kingpost.build.base import Accelerator
from kingpost.control.domain import InstanceType
from kingpost.errors import InvalidInputError


def _cpu(vcpu: int, gib: int) -> InstanceType:
    size = f"{vcpu}x{gib}"
    return InstanceType(id=size, name=size, millicpu=vcpu * 1000, memory_mib=gib * 1024)


CPU_TYPES: Final = tuple(
    _cpu(*size) for size in ((1, 2), (1, 4), (2, 8), (4, 16), (8, 32), (16, 64))
)
"""The contract's CPU sizes (platform documentation: instance types). On one's own machine the
price is zero unless a file of instance types says otherwise."""


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    millicpu: int
    memory_mib: int
    name: str | None = None
    gpu_type: str | None = None
    gpu_count: int = 0
    gpu_memory_mib: int | None = None
    price_per_minute_usd: float | str = "0"


def load(path: Path) -> tuple[InstanceType, ...]:
    """Read a YAML list of instance types. Raises InvalidInputError naming what is wrong."""
    try:
        rows = msgspec.convert(yaml.safe_load(path.read_text()), list[_Row])
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise InvalidInputError(
            f"The file of instance types {path.name} can't be used: {error}. It is a YAML list of "
            "entries with id, millicpu, memory_mib and, as needed, gpu_type, gpu_count, "
            "gpu_memory_mib, price_per_minute_usd."
        ) from error
    if len({row.id for row in rows}) != len(rows) or not rows:
        raise InvalidInputError(
            f"The file of instance types {path.name} is empty or names an id twice."
        )
    return tuple(
        InstanceType(
            id=row.id,
            name=row.name or row.id,
            millicpu=row.millicpu,
            memory_mib=row.memory_mib,
            gpu_type=row.gpu_type,
            gpu_count=row.gpu_count,
            gpu_memory_mib=row.gpu_memory_mib,
            price_per_minute_usd=_price(row, path),
        )
        for row in rows
    )


def for_accelerators(found: Iterable[tuple[str, int, int]]) -> tuple[InstanceType, ...]:
    """Instance types for GPUs found here: (name, how many, memory in MiB of each)."""
    return tuple(
        InstanceType(
            id=f"{name}:{count}x4x16" if count > 1 else f"{name}x4x16",
            name=f"{name}:{count}" if count > 1 else name,
            millicpu=4000 * count,
            memory_mib=16 * 1024 * count,
            gpu_type=name,
            gpu_count=count,
            gpu_memory_mib=memory_mib * count,
        )
        for name, most, memory_mib in found
        for count in (1, 2, 4, 8)
        if count <= most
    )


def resolve(
    types: Sequence[InstanceType],
    *,
    cpu_millis: int,
    memory_bytes: int,
    accelerator: Accelerator | None,
    named: str | None = None,
) -> InstanceType:
    """The smallest type that satisfies all three, or the one that is named (contract).

    A request larger than any type gets a type of its own, made of what was asked for, so that a
    push is never refused here: whether this machine has it is found out when it is placed.
    """
    if named is not None:
        for candidate in types:
            if named in {candidate.id, candidate.name}:
                return candidate
        known = ", ".join(t.id for t in types)
        raise InvalidInputError(f"There is no instance type {named!r}. This platform has: {known}.")
    memory_mib = -(-memory_bytes // (1024 * 1024))
    fitting = [
        t
        for t in types
        if t.millicpu >= cpu_millis and t.memory_mib >= memory_mib and _has(t, accelerator)
    ]
    if fitting:
        return min(fitting, key=lambda t: (t.gpu_count, t.memory_mib, t.millicpu))
    size = f"{-(-cpu_millis // 1000)}x{-(-memory_mib // 1024)}"
    label = f"{accelerator.name}:{accelerator.count}x{size}" if accelerator else size
    return InstanceType(
        id=label,
        name=label,
        millicpu=cpu_millis,
        memory_mib=memory_mib,
        gpu_type=accelerator.name if accelerator else None,
        gpu_count=accelerator.count if accelerator else 0,
    )


def resources_of(config: dict[str, Any]) -> dict[str, Any]:
    """A config's `resources`, or an empty one when it is absent or no mapping."""
    resources = config.get("resources")
    return resources if isinstance(resources, dict) else {}


def parse_cpu(value: Any) -> int:
    """Millis of a Kubernetes-style quantity: `1`, `"2"`, `"500m"`, `0.5`."""
    text = str(value).strip()
    try:
        amount = Decimal(text[:-1]) if text.endswith("m") else Decimal(text) * 1000
        millis = int(amount)
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise InvalidInputError(
            f"resources.cpu is {text!r}; expected a number of cores such as 1, 0.5 or 500m."
        ) from error
    if millis <= 0:
        raise InvalidInputError(f"resources.cpu is {text!r}; it must be more than 0.")
    return millis


_UNITS: Final = {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "": 1,
}


def parse_memory(value: Any) -> int:
    """Bytes of a Kubernetes-style quantity: `"2Gi"`, `"512Mi"`, `"1.5G"`, a number of bytes."""
    text = str(value).strip()
    digits = text.rstrip("KMGTik")
    unit = text[len(digits) :]
    try:
        amount = int(Decimal(digits) * _UNITS[unit])
    except (InvalidOperation, ValueError, OverflowError, KeyError) as error:
        raise InvalidInputError(
            f"resources.memory is {text!r}; expected an amount such as 512Mi or 2Gi."
        ) from error
    if amount <= 0:
        raise InvalidInputError(f"resources.memory is {text!r}; it must be more than 0.")
    return amount


def parse_accelerator(value: Any) -> Accelerator | None:
    """`"L4"`, `"L4:2"`, or nothing."""
    text = str(value or "").strip()
    if not text:
        return None
    name, _, count = text.partition(":")
    if not name or (count and (not count.isdigit() or int(count) == 0)):
        raise InvalidInputError(
            f"resources.accelerator is {text!r}; expected a name and, if more than one, a count, "
            "such as L4 or L4:2."
        )
    return Accelerator(name, int(count or 1))


def for_config(types: Sequence[InstanceType], config: dict[str, Any]) -> InstanceType:
    """The instance type that a Truss config asks for (defaults: 1 core, 2 GiB, no GPU)."""
    resources = resources_of(config)
    named = resources.get("instance_type")
    return resolve(
        types,
        cpu_millis=parse_cpu(resources.get("cpu") or "1"),
        memory_bytes=parse_memory(resources.get("memory") or "2Gi"),
        accelerator=parse_accelerator(resources.get("accelerator")),
        named=str(named) if named else None,
    )


def _has(instance: InstanceType, accelerator: Accelerator | None) -> bool:
    if accelerator is None:
        return instance.gpu_count == 0
    return instance.gpu_type == accelerator.name and instance.gpu_count >= accelerator.count


def _price(row: _Row, path: Path) -> str:
    try:
        price = Decimal(str(row.price_per_minute_usd))
    except InvalidOperation as error:
        raise InvalidInputError(
            f"{path.name}: the price of {row.id} is {row.price_per_minute_usd!r}; "
            "expected US dollars per minute."
        ) from error
    if not price.is_finite() or price < 0:
        raise InvalidInputError(f"{path.name}: the price of {row.id} must be 0 or more.")
    return str(price)
