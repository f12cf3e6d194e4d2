"""Clients of `/ws`: readers that keep their position, slow ones among them, and publishers without acknowledgement.

A message that such a publisher sent is known to be stored when it comes back.
"""

import asyncio
import json
import random
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tests.faults.record import Answered, Left, Odd, Received, Recorder, Sent, Session
from tests.harness.raw_client import RawHttp, RawWebSocket

__all__ = ["PlainClient"]

_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_AGAIN_SECONDS = 0.2
_LOOK_SECONDS = 0.05
# Longer than a pause of an instance, shorter than what a load balancer would wait.
_SILENCE_SECONDS = 25.0
# What /ws closes with when nothing is wrong with the client: draining, slow, lost, Redis away for long.
_COME_AGAIN = (1000, 1001, 1013)


class PlainClient:
    """One client, on an instance of its choice each time that it connects.

    Args:
        name: its name in the record.
        recorder: where what it sees goes.
        ports: of the instances, by name.
        seed: of all that it chooses.
        slow: whether it stops reading now and then.
        publishes: the mean time between two of its messages in seconds, or None.
    """

    def __init__(
        self,
        name: str,
        recorder: Recorder,
        ports: Mapping[str, int],
        *,
        seed: int,
        slow: bool = False,
        publishes: float | None = None,
    ) -> None:
        self.name = name
        self.quiet = False
        self._recorder = recorder
        self._ports = dict(ports)
        self._chance = random.Random(f"{seed}/{name}")  # noqa: S311 - the same choices for the same seed
        self._slow = slow
        self._publishes = publishes
        self._instance = ""
        self._socket: RawWebSocket | None = None
        self._epoch: str | None = None
        self._newest = 0
        self._begun = False
        self._awaited: dict[str, asyncio.Future[int]] = {}
        self._own: set[str] = set()
        """Nonces of its own that have come back."""

    async def run(self) -> None:
        """Read, and publish, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._stay())
            if self._publishes is not None:
                tasks.create_task(self._publish(self._publishes))
            if self._slow:
                tasks.create_task(self._pause_now_and_then())

    def drop(self) -> None:
        """Lose the network."""
        if self._socket is not None:
            self._socket.http.reset()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _stay(self) -> None:
        while True:
            self._instance = self._chance.choice(list(self._ports))
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await self._connect(self._ports[self._instance])
            await asyncio.sleep(_AGAIN_SECONDS * (0.5 + self._chance.random()))

    async def _connect(self, port: int) -> None:
        epoch, recovered = self._epoch, True
        if epoch is None:
            recovered = False
            async with await RawHttp.open(port) as http:
                answer = await http.request("GET", "/readyz")
            if answer.status != 200:
                return
            place = json.loads(answer.body)
            epoch, self._newest = place["epoch"], place["last_id"]
        async with await RawHttp.open(port, narrow=self._slow) as http:
            answer = await http.handshake(f"/ws?after={self._newest}&epoch={epoch}")
            if answer.status != 101:
                if answer.status != 503:
                    self._odd(f"got {answer.status}: {answer.body!r}")
                return
            self._epoch = epoch
            self._recorder.add(
                Session(
                    at=self._now(),
                    reader=self.name,
                    epoch=epoch,
                    last_id=self._newest,
                    recovered=recovered if self._begun else None,
                    instance=self._instance,
                    slow=self._slow,
                )
            )
            self._begun = True
            self._socket = RawWebSocket(http)
            try:
                await self._read(self._socket)
            finally:
                self._socket = None
                self._recorder.add(Left(at=self._now(), reader=self.name))
                for waiting in self._awaited.values():
                    if not waiting.done():
                        waiting.set_exception(ConnectionError())

    async def _read(self, socket: RawWebSocket) -> None:
        while True:
            opcode, payload = await socket.frame(within=_SILENCE_SECONDS)
            if opcode == _TEXT:
                for text in payload.split(b"\n"):
                    if not self._take(json.loads(text)):
                        return
            elif opcode == _PING:
                socket.send(_PONG, payload)
            elif opcode == _CLOSE:
                socket.send(_CLOSE, payload[:2])
                code, reason = int.from_bytes(payload[:2], "big"), payload[2:].decode()
                if code not in _COME_AGAIN:
                    self._odd(f"was closed with {code}: {reason}")
                if "continuity" in reason:
                    self._epoch = None
                return

    def _take(self, message: dict[str, Any]) -> bool:
        """Take a message; False where it does not follow: everything known came, so the position was void."""
        if message["id"] != self._newest + 1:
            self._epoch = None
            return False
        self._newest = message["id"]
        nonce = message.get("nonce", "")
        self._recorder.add(
            Received(at=self._now(), reader=self.name, id=self._newest, nonce=nonce, ts=message["ts"])
        )
        if nonce.startswith(f"{self.name}-"):
            self._own.add(nonce)
        waiting = self._awaited.get(nonce)
        if waiting is not None and not waiting.done():
            waiting.set_result(self._newest)
        return True

    def _odd(self, what: str) -> None:
        self._recorder.add(Odd(at=self._now(), who=self.name, what=what))

    async def _pause_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(2, 20))
            socket = self._socket
            if socket is None:
                continue
            with suppress(RuntimeError):  # it is closed already
                socket.http.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's has it
            await asyncio.sleep(self._chance.uniform(1, 10))
            with suppress(RuntimeError):
                socket.http.writer.transport.resume_reading()  # type: ignore[attr-defined]

    async def _publish(self, seconds: float) -> None:
        number = 0
        while True:
            await asyncio.sleep(seconds * 2 * self._chance.random())
            nonce = f"{self.name}-{number}"
            number += 1
            while not await self._send(nonce):  # noqa: ASYNC110 - it is no waiting
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _send(self, nonce: str) -> bool:
        while self.quiet or self._socket is None or self._epoch is None:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(_LOOK_SECONDS)
        if nonce in self._own:  # it came with what was missed while the client was away
            return True
        self._awaited[nonce] = waiting = asyncio.get_running_loop().create_future()
        sent = Sent(
            at=self._now(), publisher=self.name, nonce=nonce, instance=self._instance, acknowledged=False
        )
        self._recorder.add(sent)
        self._socket.say(json.dumps({"text": f"{self.name} says so", "nonce": nonce}))
        try:
            id_ = await waiting
        except ConnectionError:
            self._recorder.add(Answered(at=self._now(), publisher=self.name, nonce=nonce, code="dropped"))
            return False
        finally:
            del self._awaited[nonce]
        self._recorder.add(Answered(at=self._now(), publisher=self.name, nonce=nonce, id=id_))
        return True
