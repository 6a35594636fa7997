"""Instance types and resource quantities."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.build.base import Accelerator
from kingpost.contract import GIB, MIB
from kingpost.control import instances
from kingpost.control.instances import CPU_TYPES, for_config, parse_cpu, parse_memory, resolve
from kingpost.errors import InvalidInputError


@given(st.integers(1, 64_000), st.integers(1, 256 * GIB))
def test_the_resolved_type_has_what_was_asked_for(cpu: int, memory: int) -> None:
    found = resolve(CPU_TYPES, cpu_millis=cpu, memory_bytes=memory, accelerator=None)
    assert found.millicpu >= cpu
    assert found.memory_mib * MIB >= memory


def test_the_smallest_that_fits() -> None:
    assert for_config(CPU_TYPES, {}).id == "1x2"
    assert for_config(CPU_TYPES, {"resources": {"cpu": "3", "memory": "1Gi"}}).id == "4x16"


def test_an_absent_gpu_still_gets_a_type() -> None:
    found = for_config(CPU_TYPES, {"resources": {"accelerator": "H100:2"}})
    assert (found.gpu_type, found.gpu_count) == ("H100", 2)


def test_gpus_found_here_become_types() -> None:
    types = CPU_TYPES + instances.for_accelerators([("L4", 3, 24_000)])
    found = resolve(types, cpu_millis=1000, memory_bytes=GIB, accelerator=Accelerator("L4", 2))
    assert (found.gpu_count, found.gpu_memory_mib) == (2, 48_000)


@pytest.mark.parametrize(("text", "millis"), [("1", 1000), ("500m", 500), (0.5, 500), (4, 4000)])
def test_cpu_quantities(text: object, millis: int) -> None:
    assert parse_cpu(text) == millis


@pytest.mark.parametrize(
    ("text", "count"), [("2Gi", 2 * GIB), ("512Mi", 512 * MIB), ("1.5G", 1_500_000_000), (7, 7)]
)
def test_memory_quantities(text: object, count: int) -> None:
    assert parse_memory(text) == count


@given(st.text())
def test_any_other_text_is_refused_in_words(text: str) -> None:
    for parse in (parse_cpu, parse_memory):
        try:
            parsed = parse(text)
        except InvalidInputError as error:
            message = error.message
        else:
            message = "resources." if parsed > 0 else "nothing"
        assert "resources." in message


def test_a_file_of_types(tmp_path: Path) -> None:
    file = tmp_path / "types.yaml"
    file.write_text("- {id: big, millicpu: 8000, memory_mib: 4096, price_per_minute_usd: 0.01}\n")
    (big,) = instances.load(file)
    assert big.price_per_minute_usd == "0.01"
    for bad in ("[]", "- {id: x}", "- {id: x, millicpu: 1, memory_mib: 1, price: 3}", "]"):
        file.write_text(bad)
        with pytest.raises(InvalidInputError):
            instances.load(file)
