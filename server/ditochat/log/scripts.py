"""The log's scripts, which run in Redis; their files say what goes in and what comes out."""

from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

__all__ = ["APPEND", "OPEN", "READ", "Script"]


class Script:
    """A Lua script, sent by its hash; in full only where Redis does not know it (yet, or any more)."""

    def __init__(self, name: str) -> None:
        self.source = Path(__file__).with_name(name).read_bytes()
        self.sha1 = sha1(self.source, usedforsecurity=False).hexdigest()

    async def run(self, client: Redis, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Any:
        """Run it and return its answer.

        Raises:
            redis.exceptions.RedisError: Redis is out of reach or refused.
        """
        try:
            return await client.execute_command("EVALSHA", self.sha1, len(keys), *keys, *arguments)
        except NoScriptError:
            return await client.execute_command("EVAL", self.source, len(keys), *keys, *arguments)


APPEND: Final = Script("append.lua")
READ: Final = Script("read.lua")
OPEN: Final = Script("open.lua")
