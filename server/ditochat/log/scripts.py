"""The log's scripts, which run in Redis; their files say what goes in and what comes out."""

from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

__all__ = ["APPEND", "OPEN", "READ", "Script"]


# Less than a command may take, and a few times in what a publish may.
WAIT_MILLISECONDS: Final = 500


class Executor(Protocol):
    """What a script is sent to: a client, say."""

    async def execute_command(self, *args: str | bytes | int) -> Any:
        """Send one command; return its answer."""


class Script:
    """A Lua script, sent by its hash; in full only where Redis does not know it (yet, or any more)."""

    def __init__(self, name: str) -> None:
        self.source = Path(__file__).with_name(name).read_bytes()
        self.sha1 = sha1(self.source, usedforsecurity=False).hexdigest()

    async def run(self, client: Executor, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Any:
        """Run it and return its answer.

        Raises:
            redis.exceptions.RedisError: Redis is out of reach or refused.
        """
        try:
            return await client.execute_command("EVALSHA", self.sha1, len(keys), *keys, *arguments)
        except NoScriptError:
            return await client.execute_command("EVAL", self.source, len(keys), *keys, *arguments)

    async def run_and_wait(
        self, client: Redis, keys: Sequence[str], arguments: Sequence[str | bytes | int], replicas: int
    ) -> tuple[Any, int]:
        """Run it; return its answer, and how many replicas have what it wrote and all that was written before.

        Raises:
            redis.exceptions.RedisError: Redis is out of reach or refused.
        """
        try:
            return await _and_wait(client, replicas, "EVALSHA", self.sha1, len(keys), *keys, *arguments)
        except NoScriptError:
            return await _and_wait(client, replicas, "EVAL", self.source, len(keys), *keys, *arguments)


async def _and_wait(client: Redis, replicas: int, *command: str | bytes | int) -> tuple[Any, int]:
    # WAIT looks at the last write of its own connection: over another one of the pool it says nothing.
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.execute_command(*command)
        pipeline.execute_command("WAIT", replicas, WAIT_MILLISECONDS)
        answer, reached = await pipeline.execute(raise_on_error=False)
    for each in (answer, reached):
        if isinstance(each, Exception):
            raise each
    return answer, reached


APPEND: Final = Script("append.lua")
READ: Final = Script("read.lua")
OPEN: Final = Script("open.lua")
