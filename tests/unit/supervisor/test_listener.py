"""Binding, and saying who has a port."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from kingpost.errors import ConflictError, InvalidInputError
from kingpost.settings import DataFolder, Settings
from kingpost.supervisor import listener
from kingpost.supervisor.up import check_exposure


def test_a_taken_port_names_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConflictError) as caught:
            listener.bind("127.0.0.1", port)
    assert f"pid {os.getpid()}" in caught.value.message
    assert f"--port {port + 1}" in caught.value.message


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="Can't listen"):
        listener.bind("203.0.113.7", 8000)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com"])
def test_an_open_address_needs_tls_or_a_word(tmp_path: Path, host: str) -> None:
    settings = Settings(data=DataFolder(tmp_path), host=host)
    with pytest.raises(InvalidInputError, match="--insecure"):
        check_exposure(settings, insecure=False)
    check_exposure(settings, insecure=True)
    check_exposure(Settings(data=DataFolder(tmp_path)), insecure=False)
