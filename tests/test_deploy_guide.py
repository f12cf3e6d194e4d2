"""docs/deploy.md: what it says runs here does, and the chart takes what its commands set."""

import asyncio
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.conftest import StartInstances
from tests.harness.helm import needs_helm, template
from tests.harness.redis_server import RedisServer

TEXT = (Path(__file__).parents[1] / "docs/deploy.md").read_text()
BLOCKS: list[str] = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
HELM_COMMANDS = [
    shlex.split(line, comments=True)
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("helm upgrade")
]


def block(start: str) -> str:
    (one,) = [one for one in BLOCKS if one.startswith(start)]
    return one


def test_each_block_says_where_it_runs() -> None:
    assert len(BLOCKS) == TEXT.count("```sh")
    for one in BLOCKS:
        assert re.match(r"# (here|a cluster|Google Cloud)\b", one), one
        assert ("gcloud" in one) == one.startswith("# Google Cloud"), one


@needs_helm
@pytest.mark.parametrize("command", HELM_COMMANDS, ids=lambda command: command[-1])
def test_the_chart_takes_what_is_set(command: list[str]) -> None:
    assert "--namespace chatdito ditochatbackend chart" in " ".join(command)
    values = [word for i, word in enumerate(command) if "--set" in (word, command[i - 1])]
    assert values
    ended = template("--set", "host=backend.ditochallenge.com", *values)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="there is no redis-cli")
async def test_a_history_is_restored_into_an_empty_redis(
    redis_server: RedisServer, instances: StartInstances, tmp_path: Path
) -> None:
    async def run(script: str) -> None:
        shell = await asyncio.create_subprocess_exec(
            "sh", "-ec", script, cwd=tmp_path, env=os.environ | {"REDIS_URL": redis_server.url}
        )
        assert await shell.wait() == 0

    [instance] = await instances()
    for text in ("plain", 'quotes " and \\ backslashes', "two\nlines", "ünïcödé 👋", "%s $HOME `id`"):
        await instance.publish(text)
    kept = await instance.messages()
    await run(block("# here\ncli()") + block("# here: backup"))
    for _ in range(3):
        await instance.publish("after the backup")
    await instance.terminate()
    async with redis_server.client() as client:
        epoch = await client.get("{messages}:epoch")
        await client.flushall()
        await run(block("# here\ncli()") + block("# here: restore"))
        await instance.start()
        assert await instance.messages() == kept
        assert (await instance.publish("next"))["id"] == 6
        assert await client.get("{messages}:epoch") != epoch
