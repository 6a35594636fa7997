from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.engine import inside, rootless
from kingpost.engine.namespaces import Mount
from kingpost.errors import EngineError

CLOSED = [IPv4Network("169.254.0.0/16"), IPv4Network("192.0.2.7/32")]
MOUNT = Mount(("/a", "/b,c"), "/up", "/work", "/at")


def words(**options: object) -> list[str]:
    return rootless.outer("pasta", **({"outside": True, "closed": CLOSED} | options))  # type: ignore[arg-type]


def test_only_the_named_port_of_loopback_leads_in_and_none_out() -> None:
    told = words(ports=(41000, 8080))
    pairs = list(pairwise(told))
    assert ("-t", "127.0.0.1/41000:8080") in pairs
    for way in ("-u", "-T", "-U"):
        assert (way, "none") in pairs
    assert {"--no-map-gw", "--ipv4-only"} <= set(told)
    assert ("-t", "none") in list(pairwise(words()))


def test_without_outside_no_address_is_configured() -> None:
    assert "--config-net" in words()
    assert "--config-net" not in words(outside=False)


def test_what_is_told_is_what_the_inside_reads() -> None:
    told = words(mounts=[MOUNT])
    start = told.index("-c") + 2
    assert told[-1] == "--"
    networks, mounts = inside._parsed(told[start:-1])
    assert networks == [str(network) for network in CLOSED]
    expected = "lowerdir=/a:/b\\,c,upperdir=/up,workdir=/work,userxattr"
    assert mounts == [(expected, "/work", "/at")]


@given(st.lists(st.ip_addresses(v=4), unique=True, max_size=20))
def test_every_address_of_the_machine_is_found(addresses: list[IPv4Address]) -> None:
    trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n"
    for address in addresses:
        trie += f"     |-- {address}\n        /32 host LOCAL\n"
        trie += f"     |-- {address}\n        /24 link UNICAST\n"
    found = rootless.local_addresses(trie)
    assert found == sorted(address for address in addresses if not address.is_loopback)


def test_the_machines_own_table_is_read() -> None:
    closed = rootless.closed(IPv4Network("198.18.0.0/15"))
    assert any(IPv4Address("198.18.3.4") in network for network in closed)
    assert any(IPv4Address("169.254.169.254") in network for network in closed)


def test_a_machine_that_refuses_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="unprivileged user namespaces"):
        rootless.try_it("/usr/bin/bwrap", "/bin/false")
