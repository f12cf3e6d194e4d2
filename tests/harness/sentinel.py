"""A real Sentinel that watches a Valkey and its replica, and failovers on demand."""

from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from tests.harness.ports import HOST, free_port
from tests.harness.program import Program
from tests.harness.redis_server import RedisServer, bundled_valkey
from tests.harness.waiting import eventually

__all__ = ["Sentinel", "in_sync"]


class Sentinel(Program):
    """One that watches `master` under the name mymaster.

    Args:
        directory: for its configuration and its log.
        master: who is the master when it starts.
        down_after: milliseconds without an answer after which it fails over by itself.
    """

    def __init__(self, directory: Path, master: RedisServer, *, down_after: int = 1000) -> None:
        super().__init__("sentinel", directory)
        self.port = free_port()
        self._master = master
        self._down_after = down_after

    @property
    def url(self) -> str:
        """The URL of the service, for a client."""
        return f"redis+sentinel://{HOST}:{self.port}/0/mymaster"

    async def start(self) -> None:
        """Start it; :meth:`knows_a_replica` says when it is of use."""
        self.directory.mkdir()
        config = self.directory / "sentinel.conf"
        config.write_text(
            f"bind {HOST}\nport {self.port}\ndir {self.directory}\n"
            f"sentinel monitor mymaster {HOST} {self._master.port} 1\n"
            f"sentinel down-after-milliseconds mymaster {self._down_after}\n"
            "sentinel failover-timeout mymaster 5000\n"
        )
        await self.spawn([str(bundled_valkey()), str(config), "--sentinel"], {})

    def client(self) -> Redis:
        """Return a client of Sentinel itself."""
        return Redis(host=HOST, port=self.port, decode_responses=True)

    async def knows_a_replica(self) -> bool:
        """Tell whether there is somebody to fail over to."""
        async with self.client() as redis:
            try:
                replicas = await redis.execute_command("SENTINEL", "REPLICAS", "mymaster")
            except RedisError:  # it does not listen yet
                return False
            return len(replicas) == 1

    async def fail_over(self, to: RedisServer, *options: str) -> None:
        """Have the replica take over; return when it has."""
        async with self.client() as redis:

            async def begun() -> bool:
                try:
                    await redis.execute_command("SENTINEL", "FAILOVER", "mymaster", *options)
                except ResponseError:  # NOGOODSLAVE: it has not heard from the replica yet
                    return False
                return True

            await eventually(begun, otherwise=lambda: self.explain("begins no failover"))
        await self.taken_over(to)

    async def taken_over(self, by: RedisServer) -> None:
        """Wait until the replica is the master."""
        async with self.client() as redis, by.stubborn_client() as promoted:

            async def is_master() -> bool:
                _, port = await redis.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
                return int(port) == by.port and (await promoted.info("replication"))["role"] == "master"

            await eventually(is_master, otherwise=lambda: self.explain("made no failover"))


async def in_sync(replica: RedisServer) -> bool:
    """Tell whether a replica follows its master."""
    async with replica.client() as redis:
        try:
            return bool((await redis.info("replication")).get("master_link_status") == "up")
        except (RedisError, OSError):
            return False
