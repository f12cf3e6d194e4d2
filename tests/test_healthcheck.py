"""The health check, of a real server and of what is none."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ditochat.healthcheck import Unhealthy, check
from ditochat.settings import Address
from tests.conftest import StartInstances
from tests.harness.ports import HOST, free_port


async def ask(*arguments: str) -> tuple[int | None, str]:
    """Run `ditochat healthcheck`; return its exit status and what it said."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ditochat", "healthcheck", *arguments,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await program.communicate()
    return program.returncode, output.decode()


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """A server that gives everybody this answer and closes; yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_a_server_is_healthy_until_it_ends(instances: StartInstances) -> None:
    [instance] = await instances()
    address = f"{HOST}:{instance.port}"
    assert await ask("--addr", address) == (0, "")
    await instance.terminate()
    status, said = await ask("--addr", address)
    assert status == 1
    assert said.startswith(f"ditochat: no answer at {address}: ")
    assert said.endswith("Connection refused\n")


async def test_a_server_without_its_redis_is_alive(instances: StartInstances) -> None:
    [instance] = await instances(REDIS_URL=f"redis://{HOST}:{free_port()}", ready=False)
    assert await ask("--addr", f"{HOST}:{instance.port}") == (0, "")


@pytest.mark.parametrize("host", [None, "0.0.0.0", "localhost", HOST])  # noqa: S104 - what it is about
async def test_a_server_on_all_interfaces_is_asked_on_this_one(host: str | None) -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as port:
        await asyncio.to_thread(check, Address(host, port))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "was answered with 503"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "was answered with 302"),
        (b"SSH-2.0-other\r\n", "no answer at"),
        (b"", "no answer at"),
    ],
)
async def test_another_answer_is_not_healthy(answer: bytes, why: str) -> None:
    async with answering(answer) as port:
        with pytest.raises(Unhealthy, match=why):
            await asyncio.to_thread(check, Address(HOST, port))


async def test_a_server_that_stands_still_is_not_healthy() -> None:
    with socket.create_server((HOST, 0)) as server, pytest.raises(Unhealthy, match="timed out"):
        await asyncio.to_thread(check, Address(HOST, server.getsockname()[1]))


def test_a_free_port_chosen_by_the_system_cannot_be_asked() -> None:
    with pytest.raises(Unhealthy, match="no fixed port"):
        check(Address(None, 0))
