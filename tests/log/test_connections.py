"""Who is a master is asked of Redis itself, where it may be asked."""

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from ditochat.log.connections import Master, NotMaster, says_replica
from tests.harness.ports import HOST, free_port
from tests.harness.redis_server import RedisServer


@pytest.mark.parametrize(
    ("hello", "replica"),
    [
        ([b"server", b"valkey", b"role", b"replica", b"modules", []], True),
        ([b"server", b"valkey", b"role", b"master", b"modules", []], False),
        ({b"role": b"replica"}, True),
        ({b"role": b"master"}, False),
        ([b"role", b"master", b"availability_zone", b"replica"], False),
        (NoScriptError("NOPERM this user has no permissions to run the 'hello' command"), False),
        (None, False),
    ],
)
def test_the_role_is_read_from_the_answer_to_hello(hello: object, replica: bool) -> None:
    assert says_replica(hello) is replica


async def test_a_master_is_believed_and_a_replica_is_not(any_redis_server: RedisServer) -> None:
    async with any_redis_server.client(decode=False) as redis:
        master = Master(redis)
        await redis.set("key", "value")
        assert await master.execute_command("GET", "key") == b"value"
        await redis.replicaof(HOST, free_port())
        with pytest.raises(NotMaster, match="is a replica now"):
            await master.execute_command("GET", "key")
        assert master.demotions == 1
        await redis.replicaof("NO", "ONE")
        assert await master.execute_command("GET", "key") == b"value"


async def test_an_error_of_the_command_itself_is_raised(any_redis_server: RedisServer) -> None:
    async with any_redis_server.client() as redis:
        with pytest.raises(NoScriptError):
            await Master(redis).execute_command("EVALSHA", "0" * 40, 0)


async def test_whoever_may_not_ask_believes_in_a_master(any_redis_server: RedisServer) -> None:
    async with any_redis_server.client() as redis:
        await redis.execute_command(
            "ACL", "SETUSER", "few", "on", "nopass", "allkeys", "+get", "+client", "+select"
        )
        url = f"redis://few:any@{HOST}:{any_redis_server.port}/0"
        async with Redis.from_url(url, protocol=2) as few:
            assert await Master(few).execute_command("GET", "key") is None
