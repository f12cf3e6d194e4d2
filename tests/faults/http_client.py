"""Clients of `/messages`: some publish, under a nonce until it is stored; some read the history."""

import asyncio
import random
from collections.abc import Mapping

import aiohttp

from tests.faults.record import Answered, Message, Odd, Read, Recorder, Sent

__all__ = ["HttpPublisher", "HttpReader"]

_ANSWER_SECONDS = 3.5
_AGAIN_SECONDS = 0.2
_LOOK_SECONDS = 0.05
_STORED = (200, 201)
_UNAVAILABLE = 503


def _now() -> float:
    return asyncio.get_running_loop().time()


class HttpPublisher:
    """One publisher, who asks another instance each time; arguments as of :class:`PlainClient`."""

    def __init__(
        self, name: str, recorder: Recorder, urls: Mapping[str, str], *, seed: int, publishes: float
    ) -> None:
        self.name = name
        self.quiet = False
        self._recorder = recorder
        self._urls = dict(urls)
        self._chance = random.Random(f"{seed}/{name}")  # noqa: S311 - the same choices for the same seed
        self._publishes = publishes

    async def run(self) -> None:
        """Publish until cancelled."""
        number = 0
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_ANSWER_SECONDS)) as http:
            while True:
                await asyncio.sleep(self._publishes * 2 * self._chance.random())
                await self.publish(http, f"{self.name}-{number}", "x" * self._chance.randrange(200))
                number += 1

    async def publish(self, http: aiohttp.ClientSession, nonce: str, text: str) -> None:
        """Send one message until it is stored."""
        while not await self._send(http, nonce, f"{self.name} {text}"):  # noqa: ASYNC110 - it is no waiting
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _send(self, http: aiohttp.ClientSession, nonce: str, text: str) -> bool:
        while self.quiet:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(_LOOK_SECONDS)
        instance = self._chance.choice(list(self._urls))
        self._recorder.add(Sent(at=_now(), publisher=self.name, nonce=nonce, instance=instance))
        id_, duplicate, code = None, False, "dropped"
        try:
            id_, duplicate, code = await self._ask(http, instance, nonce, text)
        except TimeoutError:
            code = "timeout"
        except (aiohttp.ClientError, OSError):
            pass
        finally:  # also where the publisher itself is told to end
            told = None if id_ is not None else code
            self._recorder.add(
                Answered(at=_now(), publisher=self.name, nonce=nonce, id=id_, duplicate=duplicate, code=told)
            )
        return id_ is not None

    async def _ask(
        self, http: aiohttp.ClientSession, instance: str, nonce: str, text: str
    ) -> tuple[int | None, bool, str]:
        """Return the id, whether it was stored before, and the code where there is no id."""
        url, headers = f"{self._urls[instance]}/messages", {"Idempotency-Key": nonce}
        async with http.post(url, json={"text": text}, headers=headers) as answer:
            if answer.status in _STORED:
                return (await answer.json())["id"], answer.status == 200, ""
            if answer.status == _UNAVAILABLE:
                return None, False, "unavailable"
            what = f"got {answer.status}: {await answer.text()}"
            self._recorder.add(Odd(at=_now(), who=self.name, what=what))
            return None, False, f"status {answer.status}"


class HttpReader:
    """Somebody who looks into the history again and again, up to the newest id that was acknowledged."""

    def __init__(self, name: str, recorder: Recorder, urls: Mapping[str, str], *, seed: int) -> None:
        self.name = name
        self._recorder = recorder
        self._urls = dict(urls)
        self._chance = random.Random(f"{seed}/{name}")  # noqa: S311 - the same choices for the same seed

    async def run(self) -> None:
        """Read until cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_ANSWER_SECONDS)) as http:
            while True:
                await asyncio.sleep(2 * self._chance.random())
                try:
                    await self._look(http)
                except (aiohttp.ClientError, OSError):
                    continue

    async def _look(self, http: aiohttp.ClientSession) -> None:
        instance = self._chance.choice(list(self._urls))
        whole = self._chance.random() < 0.1
        at_least = self._recorder.newest_acknowledged
        query = {"at_least": at_least} if whole else {"at_least": at_least, "limit": 20}
        async with http.get(f"{self._urls[instance]}/messages", params=query) as answer:
            if answer.status == _UNAVAILABLE:
                return
            if answer.status != 200:
                what = f"got {answer.status}: {await answer.text()}"
                self._recorder.add(Odd(at=_now(), who=self.name, what=what))
                return
            messages = await answer.json()
            self._recorder.add(
                Read(
                    at=_now(),
                    reader=self.name,
                    instance=instance,
                    epoch=epoch_of(answer.headers["ETag"]),
                    at_least=at_least,
                    messages=[Message(one["id"], one.get("nonce", ""), one["ts"]) for one in messages],
                )
            )


def epoch_of(etag: str) -> str:
    """Return the epoch that stands in the history's entity tag."""
    return etag.removeprefix('W/"').partition(".")[0]
