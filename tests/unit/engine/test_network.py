from __future__ import annotations

import subprocess
from ipaddress import IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from kingpost.engine import network
from kingpost.engine.namespaces import Network, in_namespaces

RANGES = st.sampled_from(["198.18.0.0/15", "10.9.8.0/24", "10.9.8.0/29"]).map(IPv4Network)


@given(RANGES, st.data())
def test_pairs_lie_in_the_range_and_never_overlap(net: IPv4Network, data: st.DataObject) -> None:
    indices = st.integers(0, network.pairs_in(net) - 1)
    first, second = network.pair(net, data.draw(indices)), network.pair(net, data.draw(indices))
    for pair in (first, second):
        assert {pair.host, pair.replica} == set(IPv4Network(f"{pair.host}/31"))
        assert pair.host in net
        assert pair.replica in net
        assert len(pair.interface) <= 15
    assert (first.interface == second.interface) == (first.host == second.host)
    assert first.index == second.index or not {first.host, first.replica} & {
        second.host,
        second.replica,
    }


@given(RANGES.filter(lambda net: net.num_addresses < 1000))
def test_an_address_comes_again_only_after_all_others(net: IPv4Network) -> None:
    addresses = network.Addresses(net)
    count = network.pairs_in(net)
    walked = [addresses.next().index for _ in range(2 * count)]
    assert sorted(walked[:count]) == list(range(count))
    assert walked[:count] == walked[count:]


@given(st.text(max_size=200))
def test_any_resolv_conf_can_be_read(text: str) -> None:
    assert all(":" not in name for name in network.nameservers(text))


def test_resolvers_on_loopback_are_of_no_use() -> None:
    text = "# nameserver 1.1.1.1\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 9.9.9.9\n"
    assert network.nameservers(text) == ["9.9.9.9"]


def in_new_network() -> tuple[bool, bool, str]:
    """Rules, twice over, in a namespace of their own, so that no other platform is touched."""

    def work(_: Network) -> tuple[bool, bool, str]:
        before = network.rules_present()
        for net in ("198.18.0.0/15", "10.77.0.0/16", "198.18.0.0/15"):
            network.ensure_rules(IPv4Network(net))
        listed = subprocess.run(
            ["nft", "list", "table", "inet", network.TABLE],
            capture_output=True,
            text=True,
            check=True,
        )
        return before, network.rules_present(), listed.stdout

    return in_namespaces(work)


def test_rules_may_be_put_again_and_by_several_platforms() -> None:
    before, after, listed = in_new_network()
    assert (before, after) == (False, True)
    assert "198.18.0.0/15" in listed
    assert "10.77.0.0/16" in listed
    assert listed.count("masquerade") == 1
    assert listed.count("hook input") == 1


def test_a_firewall_that_drops_what_is_forwarded_is_found() -> None:
    def work(_: Network) -> tuple[list[str], list[str]]:
        network.ensure_rules(network.DEFAULT_RANGE)
        before = network.blocking_chains()
        chain = "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"
        subprocess.run(["nft", f"add table ip filter; {chain}"], check=True)
        return before, network.blocking_chains()

    assert in_namespaces(work) == ([], ["filter FORWARD"])


def test_an_interface_that_is_taken_is_passed_over() -> None:
    addresses = network.Addresses(IPv4Network("10.66.0.0/29"))

    def work(net: Network) -> tuple[str, str, str]:
        first = addresses.connect(net, alias="kingpost test a", routed=True)
        net.inside.remove(network.INNER)
        addresses._next = first.index
        second = addresses.connect(net, alias="kingpost test b", routed=False)
        alias = next(link.alias for link in net.outside.links() if link.name == second.interface)
        net.outside.remove(second.interface)
        return first.interface, second.interface, alias

    first, second, alias = in_namespaces(work)
    assert first.startswith(network.PREFIX)
    assert second.startswith(network.PREFIX)
    assert alias == "kingpost test b"
