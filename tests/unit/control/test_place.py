"""Placement never gives what is taken, and says what is missing."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from kingpost.build.base import Accelerator
from kingpost.contract import GIB
from kingpost.control.domain import Replica, ReplicaState
from kingpost.control.place import Gpu, Machine, NoRoom, Placed, place

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def machine(gpus: int = 0, *, emulate: bool = False) -> Machine:
    return Machine(
        cpu_millis=4000,
        memory_bytes=16 * GIB,
        gpus=tuple(Gpu(str(i), "L4", 24_000) for i in range(gpus)),
        emulate_accelerators=emulate,
    )


def holder(*gpus: str, memory: int = 0) -> Replica:
    return Replica(
        id="r" + "".join(gpus),
        deployment_id="d",
        state=ReplicaState.READY,
        created_at=NOW,
        gpus=gpus,
        memory_bytes=memory,
    )


def ask(
    where: Machine, replicas: list[Replica], accelerator: Accelerator | None = None, gib: int = 2
) -> Placed | NoRoom:
    return place(where, replicas, cpu_millis=1000, memory_bytes=gib * GIB, accelerator=accelerator)


@given(st.integers(0, 8), st.integers(1, 8), st.sets(st.integers(0, 7)))
def test_a_gpu_is_never_given_twice(total: int, count: int, taken: set[int]) -> None:
    holding = [holder(*(str(i) for i in sorted(taken)))]
    answer = ask(machine(total), holding, Accelerator("L4", count))
    if isinstance(answer, Placed):
        assert len(answer.gpus) == count
        assert not set(answer.gpus) & {str(i) for i in taken}
    else:
        assert len(set(range(total)) - taken) < count


def test_what_is_absent_is_named_and_never_comes() -> None:
    answer = ask(machine(), [], Accelerator("H100"))
    assert isinstance(answer, NoRoom)
    assert answer.never
    assert "1 x H100" in answer.reason
    assert "no GPU" in answer.reason


def test_an_absent_gpu_can_be_emulated() -> None:
    assert ask(machine(emulate=True), [], Accelerator("H100")) == Placed(emulated=True)


def test_memory_is_overcommitted_within_a_bound() -> None:
    full = [holder(memory=31 * GIB)]
    answer = ask(machine(), full)
    assert isinstance(answer, NoRoom)
    assert not answer.never
    assert isinstance(ask(machine(), full, gib=1), Placed)


def test_more_than_the_machine_has_never_fits() -> None:
    answer = ask(machine(), [], gib=17)
    assert isinstance(answer, NoRoom)
    assert answer.never


def test_ended_replicas_hold_nothing() -> None:
    ended = Replica(
        id="r", deployment_id="d", state=ReplicaState.ENDED, created_at=NOW, gpus=("0",)
    )
    assert ask(machine(1), [ended], Accelerator("L4")) == Placed(gpus=("0",))
