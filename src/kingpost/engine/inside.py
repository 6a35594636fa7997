"""Runs between pasta and bubblewrap, in a new user and network namespace: closes ways and mounts.

Started as `python -I -S -c "... import inside; inside.main()" [unreachable NETWORK]...
[overlay OPTIONS WORK AT]... -- COMMAND`, it becomes the command. It knows neither replicas nor
their folders, and imports only what costs nothing.
"""

from __future__ import annotations

import os
import sys

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_SLAVE = 0x4000, 0x80000
_FAILED = 126


def main() -> None:
    words = sys.argv[1:]
    end = words.index("--")
    told, command = words[:end], words[end + 1 :]
    try:
        networks, mounts = _parsed(told)
        _close_sockets()
        if networks:
            _close_ways(networks)
        if mounts:
            _mount(mounts)
        os.execv(command[0], command)  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"the sandbox could not be made: {error.strerror}\n")
        sys.exit(_FAILED)


def _parsed(told: list[str]) -> tuple[list[str], list[tuple[str, str, str]]]:
    networks, mounts = [], []
    words = iter(told)
    for word in words:
        if word == "unreachable":
            networks.append(next(words))
        else:
            mounts.append((next(words), next(words), next(words)))
    return networks, mounts


def _close_sockets() -> None:
    """What pasta left open here is not for the application."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                os.close(int(name))
        except OSError:  # the listing's own descriptor
            continue


def _close_ways(networks: list[str]) -> None:
    from ipaddress import IPv4Network

    sys.path.append(os.path.dirname(__file__))
    netlink = __import__("netlink")
    link = netlink.Netlink()
    for network in networks:
        link.add_unreachable_route(IPv4Network(network))
    link.close()


def _mount(mounts: list[tuple[str, str, str]]) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def check(returned: int) -> None:
        if returned != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"overlay mounts are refused ({os.strerror(number)})")

    check(libc.unshare(_CLONE_NEWNS))
    check(libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None))
    for options, work, at in mounts:
        check(libc.mount(b"overlay", os.fsencode(at), b"overlay", 0, os.fsencode(options)))
        _open_work(work)


def _open_work(folder: str) -> None:
    """Overlay makes a folder of mode 000 in its work folder, which its user could not remove."""
    made = os.path.join(folder, "work")
    if os.path.isdir(made):
        os.chmod(made, 0o700)
