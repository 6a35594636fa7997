"""A replica's network: an address of its own, a pair of interfaces, and the rules around them.

The interface `kp-<index>` on the host's side is the allocation: the kernel gives a name once, so
that several platforms on one machine never share an address, and nothing is left of it when the
replica's namespace is gone.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

import msgspec

from kingpost.engine.namespaces import Network
from kingpost.engine.netlink import Netlink, table_exists
from kingpost.errors import EngineError

PREFIX: Final = "kp-"
TABLE: Final = "kingpost"
INNER: Final = "eth0"
DEFAULT_RANGE: Final = IPv4Network("198.18.0.0/15")
"""Set aside for benchmarks of network devices (RFC 2544), so hardly used in earnest."""

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_RESOLV = Path("/etc/resolv.conf")
_RESOLV_UPSTREAM = Path("/run/systemd/resolve/resolv.conf")
_NAMESERVER = re.compile(r"^\s*nameserver\s+(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Pair:
    """Two addresses of one /31: the host's and the replica's."""

    index: int
    host: IPv4Address
    replica: IPv4Address

    @property
    def interface(self) -> str:
        return f"{PREFIX}{self.index:x}"


def pairs_in(network: IPv4Network) -> int:
    return network.num_addresses // 2


def pair(network: IPv4Network, index: int) -> Pair:
    base = network.network_address + 2 * index
    return Pair(index, base, base + 1)


class Addresses:
    """Walks round the range from a random place, so that an address is not soon used again.

    A gateway that still knows a dead replica's address must not reach another's there.
    """

    def __init__(self, network: IPv4Network) -> None:
        self.network = network
        self._count = pairs_in(network)
        self._next = secrets.randbelow(self._count)

    def next(self) -> Pair:
        index = self._next
        self._next = (index + 1) % self._count
        return pair(self.network, index)

    def connect(self, network: Network, *, alias: str, routed: bool) -> Pair:
        """Wire a namespace with the next free pair, in a thread that is in it."""
        for _ in range(self._count):
            chosen = self.next()
            try:
                network.outside.add_veth(chosen.interface, alias, INNER, network.descriptor)
            except OSError as error:
                if error.errno == errno.EEXIST:
                    continue
                raise
            break
        else:
            raise EngineError(
                f"all {self._count} replica addresses of {self.network} are in use; "
                "stop replicas, or choose a larger range."
            )
        _without_ipv6(INNER)
        network.outside.add_address(chosen.interface, chosen.host, 31)
        network.outside.set_up(chosen.interface)
        network.inside.add_address(INNER, chosen.replica, 31)
        network.inside.set_up(INNER)
        if routed:
            network.inside.add_default_route(INNER, chosen.host)
        return chosen


def rules(network: IPv4Network) -> str:
    """The nftables script: one transaction that may be run again and again, by many platforms.

    A replica reaches neither the host, nor another replica, nor link-local addresses (cloud
    metadata); only root on the host reaches a replica; nothing is forwarded to one.
    """
    ours = f'"{PREFIX}*"'
    chains = {
        "input": (
            "type filter hook input priority filter - 10; policy accept;",
            [f"iifname {ours} ct state established,related accept", f"iifname {ours} reject"],
        ),
        "output": (
            "type filter hook output priority filter - 10; policy accept;",
            [f"oifname {ours} ct state new meta skuid != 0 reject"],
        ),
        "forward": (
            "type filter hook forward priority filter - 10; policy accept;",
            [
                f"oifname {ours} ct state established,related accept",
                f"iifname {ours} oifname {ours} reject",
                f"oifname {ours} drop",
                f"iifname {ours} ip daddr {{ 169.254.0.0/16, 127.0.0.0/8 }} reject",
                f"iifname {ours} meta nfproto ipv6 drop",
                f"iifname {ours} tcp flags syn tcp option maxseg size set rt mtu",
            ],
        ),
        "postrouting": (
            "type nat hook postrouting priority srcnat; policy accept;",
            [f"ip saddr @ranges oifname != {ours} masquerade"],
        ),
    }
    lines = [
        f"add table inet {TABLE}",
        f"add set inet {TABLE} ranges {{ type ipv4_addr; flags interval; auto-merge; }}",
        f"add element inet {TABLE} ranges {{ {network} }}",
    ]
    for name, (hook, entries) in chains.items():
        lines.append(f"add chain inet {TABLE} {name} {{ {hook} }}")
        lines.append(f"flush chain inet {TABLE} {name}")
        lines += [f"add rule inet {TABLE} {name} {entry}" for entry in entries]
    return "\n".join(lines) + "\n"


def ensure_rules(network: IPv4Network) -> None:
    """Put the rules in place and let the host forward. Blocks; raises `EngineError`."""
    done = subprocess.run(
        ["nft", "-f", "-"],
        input=rules(network),
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"},
    )
    if done.returncode != 0:
        line = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise EngineError(
            f"nftables refused the rules that keep replicas apart: {line}. "
            "Check that nftables works here: `nft list tables`."
        )
    ensure_route(network)
    if _FORWARD.read_text().strip() != "1":
        _FORWARD.write_text("1\n")


def ensure_route(network: IPv4Network) -> None:
    """Keep what is sent to a replica that is gone from leaving by the default route."""
    link = Netlink()
    try:
        link.add_unreachable_route(network)
    finally:
        link.close()


def blocking_chains() -> list[str]:
    """Chains of other firewalls that drop by default what is forwarded, so replicas' egress too."""
    done = subprocess.run(
        ["nft", "-j", "list", "chains"],
        capture_output=True,
        check=False,
        env={"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"},
    )
    return _dropping(done.stdout) if done.returncode == 0 else []


def _dropping(listed: bytes) -> list[str]:
    """From nft's JSON the names of chains, `table name`, whose policy is to drop."""
    found = [entry.get("chain", {}) for entry in msgspec.json.decode(listed)["nftables"]]
    return [
        f"{chain['table']} {chain['name']}"
        for chain in found
        if chain.get("hook") == "forward" and chain.get("policy") == "drop"
    ]


def rules_present() -> bool:
    """Whether our table is there; a firewall that is reloaded may have removed it."""
    return table_exists(TABLE)


def remove_interfaces(
    keep: set[str], alias_prefix: str, *, keep_aliases: tuple[str, ...] = ()
) -> list[str]:
    """Remove our interfaces (by alias) that no running replica has; returns their names."""
    link = Netlink()
    try:
        gone = [
            found.name
            for found in link.links()
            if found.name.startswith(PREFIX)
            and found.alias.startswith(alias_prefix)
            and found.name not in keep
            and found.alias not in keep_aliases
        ]
        for name in gone:
            link.remove(name)
        return gone
    finally:
        link.close()


def remove_interface(name: str) -> None:
    link = Netlink()
    try:
        link.remove(name)
    finally:
        link.close()


def nameservers(text: str) -> list[str]:
    """The resolvers of a resolv.conf that a replica can reach, so none of the host's loopback."""
    found = [str(name) for name in _NAMESERVER.findall(text)]
    return [name for name in found if ":" not in name and not name.startswith("127.")]


def resolvers() -> list[str]:
    """The resolvers for replicas; empty when the host has none that they can reach."""
    for path in (_RESOLV, _RESOLV_UPSTREAM):
        try:
            found = nameservers(path.read_text())
        except OSError:
            continue
        if found:
            return found
    return []


def _without_ipv6(interface: str) -> None:
    switch = Path(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6")
    if switch.exists():
        switch.write_text("1")
