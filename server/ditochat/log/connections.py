"""Connections to Redis, from a URL.

Each user has its own, so that none can starve another: the subscription, the appends, and the reads.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

__all__ = ["Connections", "Master", "NotMaster", "connect", "raise_if_cancelled", "says_replica"]

# A publish has 2 s (SPEC, G6): one answer that never comes must leave time for another try.
COMMAND_TIMEOUT_SECONDS: Final = 0.8
CONNECT_TIMEOUT_SECONDS: Final = 0.8
_REPLICA: Final = b"replica"


@dataclass(frozen=True, slots=True)
class Connections:
    """One client a use; each opens its connections when it is first used, and again after any failure."""

    appends: Redis
    reads: Redis
    subscription: Redis

    async def close(self) -> None:
        """Close all; nothing may be under way on them."""
        for client in (self.appends, self.reads, self.subscription):
            await client.aclose()


class NotMaster(RedisError):
    """What we are connected to is a replica: it may lag, or hear nothing any more, and would not say so."""


class Master:
    """Asks Redis, and believes the answer only of a master.

    A master that was made a replica keeps its connections, and goes on answering whoever only reads.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self.demotions = 0
        """How often it turned out to be a replica; other connections may lead to the same."""

    async def execute_command(self, *command: str | bytes | int) -> Any:
        """Return the answer.

        Raises:
            NotMaster: the connections are closed; the next ones may lead to the master.
            redis.exceptions.RedisError, OSError: Redis is out of reach or refused.
        """
        async with self._client.pipeline(transaction=False) as commands:
            commands.execute_command(*command)
            # Behind the command: who is a master then, was one when it answered.
            commands.execute_command("HELLO")
            answer, hello = await commands.execute(raise_on_error=False)
        if isinstance(answer, Exception):
            raise answer
        if says_replica(hello):
            self.demotions += 1
            await self._client.connection_pool.disconnect(inuse_connections=False)
            raise NotMaster("this Redis is a replica now")
        return answer


def says_replica(hello: object) -> bool:
    """Read the answer to HELLO (its words in turn with their values); who may not ask believes in a master."""
    if isinstance(hello, dict):
        return hello.get(b"role") == _REPLICA
    return isinstance(hello, list) and (b"role", _REPLICA) in zip(hello[::2], hello[1::2], strict=False)


def connect(url: str) -> Connections:
    """Prepare connections to ``redis://``, ``rediss://``, ``unix://`` or ``redis+sentinel://``.

    Nothing is sent yet, so a server that is out of reach is no error here.

    Raises:
        ValueError: the URL is of no known form.
    """
    return Connections(
        appends=_client(url, "append"), reads=_client(url, "read"), subscription=_client(url, "follow")
    )


def raise_if_cancelled() -> None:
    """End a loop around Redis commands whose cancellation was swallowed.

    redis-py sends through ``asyncio.wait_for``, which before Python 3.12 drops a cancellation that arrives
    together with the result (python/cpython issue 81839).
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _client(url: str, use: str) -> Redis:
    options: dict[str, Any] = {
        # The answers of RESP2 are the same on Redis 6.2 as on Valkey 9.
        "protocol": 2,
        "client_name": f"ditochat-{use}",
        "socket_timeout": COMMAND_TIMEOUT_SECONDS,
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        # Whoever asks knows how long it may take; a hidden retry would break that promise.
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
    }
    if not url.startswith("redis+sentinel://"):
        return Redis.from_url(url, **options)
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    sentinels = [_host_port(host) for host in hosts.split(",")]
    database, _, service = parts.path.strip("/").rpartition("/")
    if credentials:
        username, _, password = credentials.partition(":")
        options |= {"username": unquote(username) or None, "password": unquote(password) or None}
    sentinel_options = {
        name: options[name] for name in ("protocol", "socket_timeout", "socket_connect_timeout")
    }
    sentinel = Sentinel(
        sentinels, sentinel_kwargs={**sentinel_options, "retry": Retry(NoBackoff(), 0)}, **options
    )
    client: Redis = sentinel.master_for(service, db=int(database or 0))
    return client


def _host_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if parts.hostname is None:
        raise ValueError(f"expected host:port, got {text!r}")
    return parts.hostname, parts.port or 26379
