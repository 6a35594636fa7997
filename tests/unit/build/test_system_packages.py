from __future__ import annotations

import pytest

from kingpost.build import system_packages
from kingpost.errors import BuildFailedError


def test_what_is_installed_passes() -> None:
    assert system_packages.check(["base-files", "dpkg:amd64", "bash=1.2*"]) == [
        "base-files",
        "dpkg",
        "bash",
    ]


def test_missing_ones_are_named_with_the_apt_line() -> None:
    with pytest.raises(BuildFailedError, match="apt-get install -y no-such-a no-such-b"):
        system_packages.check(["bash", "no-such-a", "no-such-b"])


@pytest.mark.parametrize("name", ["--help", "a b", "", "$(x)"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(BuildFailedError, match="not a package"):
        system_packages.check([name])


def test_none_are_none() -> None:
    assert system_packages.check([]) == []
