"""Starts a process in namespaces of its own, made in a thread that ends afterwards.

The namespaces have no name and no file: they live as long as a process in them, so that no crash
of ours can leave one behind.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kingpost.engine.netlink import Netlink
from kingpost.errors import EngineError

T = TypeVar("T")

_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_MS_REC, _MS_SLAVE = 0x4000, 0x80000


@dataclass(frozen=True)
class Network:
    """A new network namespace and the host's, to be wired by who runs in it."""

    inside: Netlink
    outside: Netlink
    descriptor: int


@dataclass(frozen=True)
class Mount:
    """An overlay to mount at `at`. `lower` is topmost first."""

    lower: tuple[str, ...]
    upper: str
    work: str
    at: str


def in_namespaces(work: Callable[[Network], T], mounts: Sequence[Mount] = ()) -> T:
    """Run `work` (which starts a process) in a thread with new namespaces; blocks, needs root.

    The network is a new one with its loopback up; with `mounts` the mounts are new ones too.
    """
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            if mounts:
                _new_mounts(mounts)
            with _new_network() as network:
                result.append(work(network))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=run, name="kingpost-launch")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def overlay_options(mount: Mount) -> str:
    lower = ":".join(_escaped(path) for path in mount.lower)
    return f"lowerdir={lower},upperdir={_escaped(mount.upper)},workdir={_escaped(mount.work)}"


@contextmanager
def _new_network() -> Iterator[Network]:
    with ExitStack() as stack:
        outside = Netlink()
        stack.callback(outside.close)
        _check(_libc().unshare(_CLONE_NEWNET), "network namespaces")
        descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        inside = Netlink()
        stack.callback(inside.close)
        inside.set_up("lo")
        yield Network(inside, outside, descriptor)


def _new_mounts(mounts: Sequence[Mount]) -> None:
    libc = _libc()
    _check(libc.unshare(_CLONE_NEWNS), "mount namespaces")
    _check(libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None), "mount namespaces")
    for mount in mounts:
        Path(mount.at).mkdir(parents=True, exist_ok=True)
        options = os.fsencode(overlay_options(mount))
        at = os.fsencode(mount.at)
        _check(libc.mount(b"overlay", at, b"overlay", 0, options), "overlay mounts")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(returned: int, what: str) -> None:
    if returned != 0:
        reason = os.strerror(ctypes.get_errno())
        raise EngineError(
            f"this machine refuses {what} ({reason}). Run `kingpost doctor` for what is missing."
        )


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
