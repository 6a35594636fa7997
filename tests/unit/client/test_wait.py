"""What each status means to one who waits."""

from hypothesis import given
from hypothesis import strategies as st

from kingpost.client.wait import Outcome, outcome
from kingpost.contract import DeploymentStatus


@given(st.sampled_from(DeploymentStatus))
def test_every_status_is_decided(status: DeploymentStatus) -> None:
    words = status.value.split("_")
    failed = bool({"FAILED", "UNHEALTHY", "STOPPED", "INACTIVE", "DEACTIVATING"} & set(words))
    assert (outcome(status) is Outcome.FAILED) == failed


@given(st.text())
def test_a_status_that_is_new_may_still_change(status: str) -> None:
    if status not in set(DeploymentStatus):
        assert outcome(status) is Outcome.PENDING
