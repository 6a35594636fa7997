"""The process beside each replica: owns its output, passes on SIGTERM, and records its end.

Started detached by the engine as `python -I -S -c "... import shim; shim.main()"`, it outlives the
platform. It knows neither bubblewrap nor cgroups: its job names what to run, what to read at the
end and what to remove. Only modules that cost nothing to import (`signal` and `json` double the
time to start).
"""

from __future__ import annotations

import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kingpost.engine import logwriter
else:
    import logwriter

signal = __import__("_signal")

_DEFAULTS = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM),
    *(signal.SIGUSR1, signal.SIGCHLD, signal.SIGXFSZ),
)
"""A command starts with these as the system has them, whatever we or our parent ignore."""
_CHUNK_BYTES = 64 * 1024
_DRAIN_S = 2.0
_WATCH_INTERVAL_MS = 500
_RETRY_MS = 20
"""How soon to ask again an application that was asked to end before it had begun."""
_PR_SET_CHILD_SUBREAPER = 36


class Job:
    """What the engine asks for, as `key NUL value NUL` pairs on standard input.

    `folder` of the replica; `log_dir`, `log_bytes`; `arg` (repeated) is the command; `env`
    (repeated) its whole environment; `procs` (repeated) are files that take a process id to join
    a group; `oom` a file with the group's `oom_kill` count; `memory` the limit in bytes for
    people and for the watchdog; `watch` 1 when nothing else holds the limit; `rmdir` (repeated)
    the groups to remove at the end; `secrets` the folder to remove at the end; `option`
    (repeated) says that the command is bubblewrap, and its options; `outer` (repeated) what runs
    bubblewrap in namespaces of its own, so that its process ids are not ours; `lock` the
    descriptor whose lock shows that this shim lives.
    """

    def __init__(self, data: bytes) -> None:
        fields = data.split(b"\0")
        self._pairs = list(zip(fields[0:-1:2], fields[1::2], strict=True))

    def all(self, key: bytes) -> list[bytes]:
        return [value for name, value in self._pairs if name == key]

    def one(self, key: bytes) -> str:
        return next((os.fsdecode(value) for name, value in self._pairs if name == key), "")


class Shim:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._folder = job.one(b"folder")
        self._memory = int(job.one(b"memory") or 0)
        self._outer = job.all(b"outer")
        self._log = logwriter.LogWriter(job.one(b"log_dir"), int(job.one(b"log_bytes")))
        self._child = -1
        self._init = 0
        self._init_fd = -1
        self._killed = ""
        self._asked = False
        self._over = 0

    def run(self) -> None:
        wake = _signals()
        try:
            out, err, info = self._spawn()
        except OSError as error:
            self._finish(None, f"could not be started: {error.strerror}")
            _report(f"failed {error.strerror}")
            return
        poll = select.poll()
        streams = {out: b"o", err: b"e"}
        for fd in (wake, out, err):
            poll.register(fd, select.POLLIN)
        if self._outer:
            self._record()
            if not _child_pid(info):
                self._give_up(streams)
                return
            self._adopt_init(_first_child(_first_child(self._child)))
        elif info >= 0:
            self._adopt_init(_child_pid(info))
        else:
            _become_reaper()
        self._record()
        _report("started")
        status = None
        watched = bool(self._job.one(b"watch"))
        while status is None:
            for fd, _ in poll.poll(self._patience(watched)):
                if fd == wake:
                    self._signalled(os.read(wake, 64))
                elif not self._copy(fd, streams[fd]):
                    poll.unregister(fd)
                    del streams[fd]
            if self._asked and _kill(self._application(), signal.SIGTERM):
                self._asked = False
            if watched:
                self._watch()
            status = self._reap()
        self._kill_rest()
        self._drain(streams)
        self._finish(status, self._killed)

    def _spawn(self) -> tuple[int, int, int]:
        argv = self._job.all(b"arg")
        options = self._job.all(b"option")
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        info, info_end = os.pipe() if options else (-1, -1)
        if options:
            args = os.memfd_create("options", 0)
            os.set_inheritable(info_end, True)
            passed = [b"--info-fd", b"%d" % info_end, *options]
            os.write(args, b"".join(option + b"\0" for option in passed))
            os.lseek(args, 0, os.SEEK_SET)
            argv = [*self._outer, argv[0], b"--args", b"%d" % args, *argv[1:]]
        env = dict(pair.split(b"=", 1) for pair in self._job.all(b"env"))
        failed, failed_end = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            try:
                for path in self._job.all(b"procs"):
                    _put(path, b"0")
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(out_end, 1)
                os.dup2(err_end, 2)
                os.umask(0o022)
                _put(b"/proc/self/oom_score_adj", b"300")
                if not options:
                    os.setsid()
                    cwd = self._job.one(b"cwd")
                    os.chdir(cwd or "/")
                for number in _DEFAULTS:
                    signal.signal(number, signal.SIG_DFL)
                os.execvpe(argv[0], argv, env)  # noqa: S606
            except OSError as error:
                os.write(failed_end, b"%d" % (error.errno or 0))
            finally:
                os._exit(127)
        for fd in (out_end, err_end, info_end, failed_end):
            if fd >= 0:
                os.close(fd)
        number = os.read(failed, 16)
        os.close(failed)
        if number:
            os.waitpid(self._child, 0)
            raise OSError(int(number), os.strerror(int(number)))
        return out, err, info

    def _give_up(self, streams: dict[int, bytes]) -> None:
        """What runs bubblewrap ended before it did; why is in the log."""
        reason = "its sandbox could not be made"
        self._drain(streams)
        _, status = os.waitpid(self._child, 0)
        self._finish(status, reason)
        _report(f"failed {reason}")

    def _record(self) -> None:
        text = (
            f'{{"pid":{os.getpid()},"start":{_start_time(os.getpid())},"child":{self._child},'
            f'"child_start":{_start_time(self._child)},"init":{self._init},'
            f'"init_start":{_start_time(self._init)}}}'
        )
        _replace(os.path.join(self._folder, "shim.json"), text)

    def _signalled(self, numbers: bytes) -> None:
        if signal.SIGUSR1 in numbers:
            self._killed = "killed: it had not ended within its grace"
            self._kill()
        elif signal.SIGTERM in numbers:
            self._asked = True

    def _patience(self, watched: bool) -> int | None:
        if self._asked:
            return _RETRY_MS
        return _WATCH_INTERVAL_MS if watched else None

    def _adopt_init(self, pid: int) -> None:
        try:
            self._init_fd = os.pidfd_open(pid) if pid else -1
        except OSError:
            return
        self._init = pid

    def _reap(self) -> int | None:
        """The command's status once it has ended; takes in orphans on the way."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid == self._child:
                return status
            if pid == 0:
                return None

    def _application(self) -> int:
        """The application's process: in a sandbox the first child of the sandbox's init."""
        if not self._init:
            return self._child
        return _first_child(self._init)

    def _kill(self) -> None:
        if self._init_fd < 0:
            _kill(self._child, signal.SIGKILL)
            return
        try:
            signal.pidfd_send_signal(self._init_fd, signal.SIGKILL)
        except OSError:
            return

    def _kill_rest(self) -> None:
        """A sandbox ends with its init; plain processes are children of ours by now."""
        if self._init_fd >= 0:
            self._kill()
            poll = select.poll()
            poll.register(self._init_fd, select.POLLIN)
            poll.poll(5000)
            return
        while left := _descendants(os.getpid()):
            for pid in left:
                _kill(pid, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except OSError:
                return

    def _copy(self, fd: int, kind: bytes) -> bool:
        try:
            chunk = os.read(fd, _CHUNK_BYTES)
        except OSError:
            return False
        if chunk:
            self._log.feed(kind, chunk)
        return bool(chunk)

    def _drain(self, streams: dict[int, bytes]) -> None:
        deadline = time.monotonic() + _DRAIN_S
        for fd, kind in streams.items():
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            while time.monotonic() < deadline and poll.poll(100) and self._copy(fd, kind):
                pass

    def _watch(self) -> None:
        """Where no group holds the limit: kill when the tree is over it twice running."""
        used = sum(_resident(pid) for pid in _descendants(os.getpid()))
        self._over = self._over + 1 if used > self._memory else 0
        if self._over >= 2 and not self._killed:
            self._killed = "oom"
            self._kill()

    def _finish(self, status: int | None, reason: str) -> None:
        code, number = _meaning(status, sandboxed=bool(self._job.all(b"option")))
        failed = code != 0
        oom = failed and (reason == "oom" or _oom_kills(self._job.one(b"oom")) > 0)
        if oom:
            reason = f"out of memory: limit {logwriter.size_text(self._memory)}"
        if reason:
            self._log.line(b"b", reason)
        self._log.close()
        for group in self._job.all(b"rmdir"):
            _remove_group(group)
        _remove_folder(self._job.one(b"secrets"))
        _replace(
            os.path.join(self._folder, "exit.json"),
            f'{{"code":{_json(code)},"signal":{_json(number)},"at_ns":{time.time_ns()},'
            f'"oom":{"true" if oom else "false"},"reason":{_quote(reason)}}}',
        )


def main() -> None:
    data = b""
    while chunk := os.read(0, _CHUNK_BYTES):
        data += chunk
    if not data.endswith(b"\0end\0\0"):
        return  # the engine ended before it had said all
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.umask(0o077)
    job = Job(data.removesuffix(b"end\0\0"))
    os.set_inheritable(int(job.one(b"lock")), False)
    Shim(job).run()


def _become_reaper() -> None:
    """Orphans of plain processes become children of this process, so that it can end them."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _signals() -> int:
    """Make signals readable: each arrives as a byte with its number."""
    wake, wake_end = os.pipe()
    os.set_blocking(wake_end, False)
    signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    return wake


def _report(word: str) -> None:
    """Tell the engine once, then let go of the pipe."""
    _try_write(1, word.encode() + b"\n")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)


def _child_pid(info: int) -> int:
    """What bubblewrap says of itself: `{"child-pid": N, ...}`; 0 when it ended before."""
    text = b""
    while b"}" not in text and (chunk := os.read(info, 4096)):
        text += chunk
    os.close(info)
    digits = text.partition(b'"child-pid":')[2].split(b",")[0].split(b"}")[0].strip()
    return int(digits) if digits.isdigit() else 0


def _meaning(status: int | None, *, sandboxed: bool) -> tuple[int | None, int | None]:
    """(exit code, signal). Bubblewrap passes on a death by signal N as the code 128 + N."""
    if status is None:
        return 127, None
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return None, -code
    if sandboxed and 128 < code <= 128 + 64:
        return None, code - 128
    return code, None


def _start_time(pid: int) -> int:
    """Clock ticks after boot; with the boot id it makes a process id unique."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        return 0


def _descendants(root: int) -> list[int]:
    found = []
    queue = [root]
    while queue:
        pid = queue.pop()
        try:
            with open(f"/proc/{pid}/task/{pid}/children") as file:
                children = [int(word) for word in file.read().split()]
        except OSError:
            continue
        found += children
        queue += children
    return found


def _first_child(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return int(file.read().split()[0])
    except (OSError, IndexError):
        return 0


def _resident(pid: int) -> int:
    """Bytes of memory that a process accounts for, shared pages in parts."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def _oom_kills(path: str) -> int:
    try:
        with open(path) as file:
            for line in file:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    except OSError:
        return 0
    return 0


def _kill(pid: int, number: int) -> bool:
    try:
        if pid > 0:
            os.kill(pid, number)
    except OSError:
        return False
    return pid > 0


def _try_write(fd: int, data: bytes) -> None:
    try:
        os.write(fd, data)
    except OSError:
        return


def _put(path: bytes, text: bytes) -> None:
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, text)
    os.close(fd)


def _replace(path: str, text: str) -> None:
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(fd, text.encode())
    os.close(fd)
    os.rename(path + ".new", path)


def _remove_group(path: bytes) -> None:
    for _ in range(50):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)  # its last processes are still being reaped
        else:
            return


def _remove_folder(path: str) -> None:
    try:
        for name in os.listdir(path) if path else ():
            os.unlink(os.path.join(path, name))
        os.rmdir(path or os.devnull)
    except OSError:
        return


def _json(value: int | None) -> str:
    return "null" if value is None else str(value)


def _quote(text: str) -> str:
    """A JSON string of plain text."""
    if not text:
        return "null"
    safe = "".join(c if c >= " " and c not in '"\\' else f"\\u{ord(c):04x}" for c in text)
    return f'"{safe}"'
