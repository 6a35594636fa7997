"""The few rtnetlink requests that a replica's network needs, without a process per request.

Formats: rtnetlink(7), veth's IFLA_INFO_DATA from the kernel's if_link.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

_NLM_F_REQUEST, _NLM_F_ACK = 0x1, 0x4
_NLM_F_DUMP, _NLM_F_EXCL, _NLM_F_CREATE = 0x300, 0x200, 0x400
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 17, 18, 20, 24
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_NET_NS_FD = 3, 18, 20, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_IFF_UP = 1
_NETLINK_NETFILTER = 12
_NFPROTO_INET, _NFT_GETTABLE, _NFTA_TABLE_NAME = 1, (10 << 8) | 1, 1
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST, _RTN_UNREACHABLE = 254, 4, 1, 7


class Link(NamedTuple):
    name: str
    alias: str


class Netlink:
    """A request socket of the network namespace in which it was made. Raises `OSError`."""

    def __init__(self, family: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family
        )
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def request(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Send one request and wait until the kernel has done it."""
        self._exchange(kind, body, flags | _NLM_F_ACK)

    def add_veth(self, name: str, alias: str, peer: str, peer_namespace: int) -> None:
        """A pair: `name` here, `peer` in the namespace of that descriptor. EEXIST: name taken."""
        inside = _link_header() + _text(_IFLA_IFNAME, peer)
        inside += _attribute(_IFLA_NET_NS_FD, struct.pack("=I", peer_namespace))
        data = _attribute(_VETH_INFO_PEER, inside)
        info = _text(_IFLA_INFO_KIND, "veth") + _attribute(_IFLA_INFO_DATA, data)
        body = _link_header() + _text(_IFLA_IFNAME, name)
        self.request(
            _RTM_NEWLINK, body + _attribute(_IFLA_LINKINFO, info), _NLM_F_CREATE | _NLM_F_EXCL
        )
        self.set_alias(name, alias)

    def set_alias(self, name: str, alias: str) -> None:
        self.request(_RTM_NEWLINK, _link_header(self.index(name)) + _text(_IFLA_IFALIAS, alias))

    def set_up(self, name: str) -> None:
        self.request(_RTM_NEWLINK, _link_header(self.index(name), _IFF_UP))

    def add_address(self, name: str, address: IPv4Address, prefix: int) -> None:
        header = struct.pack("=BBBBi", socket.AF_INET, prefix, 0, 0, self.index(name))
        body = header + _attribute(_IFA_LOCAL, address.packed)
        self.request(
            _RTM_NEWADDR,
            body + _attribute(_IFA_ADDRESS, address.packed),
            _NLM_F_CREATE | _NLM_F_EXCL,
        )

    def add_default_route(self, name: str, gateway: IPv4Address) -> None:
        header = struct.pack(
            "=BBBBBBBBI",
            *(socket.AF_INET, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, 0, _RTN_UNICAST, 0),
        )
        body = header + _attribute(_RTA_GATEWAY, gateway.packed)
        body += _attribute(_RTA_OIF, struct.pack("=i", self.index(name)))
        self.request(_RTM_NEWROUTE, body, _NLM_F_CREATE | _NLM_F_EXCL)

    def add_unreachable_route(self, network: IPv4Network) -> None:
        """What has no nearer route ends here; nothing when it is there already."""
        header = struct.pack(
            "=BBBBBBBBI",
            *(socket.AF_INET, network.prefixlen, 0, 0),
            *(_RT_TABLE_MAIN, _RTPROT_STATIC, 0, _RTN_UNREACHABLE, 0),
        )
        body = header + _attribute(_RTA_DST, network.network_address.packed)
        try:
            self.request(_RTM_NEWROUTE, body, _NLM_F_CREATE | _NLM_F_EXCL)
        except FileExistsError:
            return

    def remove(self, name: str) -> None:
        """Remove an interface, and so its pair; nothing when there is none of that name."""
        try:
            body = _link_header() + _text(_IFLA_IFNAME, name)
            self.request(_RTM_DELLINK, body)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def index(self, name: str) -> int:
        body = _link_header() + _text(_IFLA_IFNAME, name)
        for kind, payload in self._exchange(_RTM_GETLINK, body, 0):
            if kind == _RTM_NEWLINK:
                return int(struct.unpack_from("=i", payload, 4)[0])
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    def links(self) -> list[Link]:
        found = []
        for kind, payload in self._exchange(_RTM_GETLINK, _link_header(), _NLM_F_DUMP):
            if kind != _RTM_NEWLINK:
                continue
            attributes = dict(_attributes(payload[16:]))
            name = attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
            alias = attributes.get(_IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace")
            found.append(Link(name, alias))
        return found

    def _exchange(self, kind: int, body: bytes, flags: int) -> list[tuple[int, bytes]]:
        self._sequence += 1
        header = struct.pack(
            "=IHHII", 16 + len(body), kind, _NLM_F_REQUEST | flags, self._sequence, 0
        )
        self._socket.sendall(header + body)
        answers: list[tuple[int, bytes]] = []
        while True:
            data = self._socket.recv(256 * 1024)
            for answer, sequence, payload in _messages(data):
                if sequence != self._sequence:
                    continue
                if answer == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", payload)[0]
                    if number:
                        raise OSError(number, os.strerror(number))
                    return answers
                if answer == _NLMSG_DONE:
                    return answers
                answers.append((answer, payload))
                if not flags & (_NLM_F_DUMP | _NLM_F_ACK):
                    return answers


def table_exists(name: str) -> bool:
    """Whether nftables has an `inet` table of that name (nfnetlink's NFT_MSG_GETTABLE)."""
    header = struct.pack("=BBH", _NFPROTO_INET, 0, 0)
    asking = Netlink(_NETLINK_NETFILTER)
    try:
        asking.request(_NFT_GETTABLE, header + _text(_NFTA_TABLE_NAME, name))
    except OSError:
        return False
    finally:
        asking.close()
    return True


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    while len(data) >= 16:
        length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data)
        yield kind, sequence, data[16:length]
        data = data[_aligned(length) :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind, data[4:length]
        data = data[_aligned(length) :]


def _link_header(index: int = 0, flags: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + b"\0" * (_aligned(length) - length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
