"""Other processes' emits: python-socketio's Redis manager, on the log's own subscription.

The manager opens no connection to listen: the follower hands it what comes over the channel and is not the
log's, so it is subscribed exactly as long as the follower is.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final

import msgspec
import socketio
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ditochat.errors import Invalid
from ditochat.fanout import Member, Room
from ditochat.log.envelope import ROOM
from ditochat.log.keys import CHANNEL
from ditochat.metrics import Metrics
from ditochat.validation import convert

__all__ = ["ChatManager"]

logger = logging.getLogger(__name__)

RESERVED_EVENTS: Final = frozenset({"message", "session", "reset"})
# Of other processes' emits, which promise no delivery: enough for any burst, and no leak.
MAX_WAITING: Final = 10_000


class _Request(msgspec.Struct):
    """What a manager publishes, as far as python-socketio relies on it unchecked."""

    method: str
    sid: str | None = None
    room: str | int | list[str | int] | None = None
    namespace: str | None = None


class _Emit(_Request, kw_only=True):
    event: str
    data: Any
    skip_sid: str | list[str | None] | None = None


class _LocalEmits(socketio.AsyncManager):  # type: ignore[misc]  # python-socketio has no type information
    """Delivers an emit to the clients of this instance: through the room, in order with the messages.

    Stands behind ``AsyncPubSubManager`` in the method resolution order, where that class expects to find
    ``AsyncManager.emit``.
    """

    room: Room
    metrics: Metrics
    members: dict[str, Member]
    """The Socket.IO clients of this instance, by session id."""
    other_rooms: dict[str, set[str]]
    """Rooms that other processes made: name to session ids."""

    async def emit(  # noqa: PLR0917  # python-socketio's own signature
        self,
        event: str,
        data: Any,
        namespace: str,
        room: str | list[str] | None = None,
        skip_sid: str | list[str] | None = None,
        callback: Callable[..., Any] | None = None,
        to: str | list[str] | None = None,
        **_kwargs: Any,
    ) -> None:
        """Send an event to the clients of a room, in the namespace ``/``."""
        if event in RESERVED_EVENTS:
            logger.warning(
                "dropped an emit of %r by another process: the event is the log's own; "
                "POST /messages publishes", event,
            )  # fmt: skip
            self.metrics.foreign_emits.labels("refused").inc()
            return
        if namespace not in (None, "/"):
            return
        args = list(data) if isinstance(data, tuple) else [] if data is None else [data]
        skip = {skip_sid} if isinstance(skip_sid, str) else set(skip_sid or ())
        members = [(sid, self.members[sid]) for sid in self._addressed(to or room) - skip]
        if callback is None:
            self.room.emit([member for _, member in members], event, args)
        else:
            for sid, member in members:
                ack_id = self._generate_ack_id(sid, callback)
                self.room.emit([member], event, args, ack_id=ack_id)
        self.metrics.foreign_emits.labels("delivered").inc()

    def _addressed(self, room: str | list[str] | None) -> set[str]:
        rooms = [room] if isinstance(room, str) or room is None else room
        if None in rooms or ROOM in rooms:  # every client is in the room `chat`
            return set(self.members)
        names = [name for name in rooms if name is not None]
        own = {sid for sid in names if sid in self.members}
        return own.union(*(self.other_rooms.get(name, set()) for name in names))


class ChatManager(socketio.AsyncRedisManager, _LocalEmits):  # type: ignore[misc]
    """An ``AsyncRedisManager`` that shares the follower's subscription and cannot go deaf by itself.

    There is one namespace, and every client is in the room `chat`, so a client costs two entries here; the base
    class would keep a bidirectional map for each.
    """

    name = "ditochat"

    def __init__(self, redis: Redis, room: Room, metrics: Metrics) -> None:
        super().__init__("redis://", channel=CHANNEL, logger=logger)
        self.room = room
        self.metrics = metrics
        self.members = {}
        self.other_rooms = {}
        self._eio_sids: dict[str, str] = {}
        self._client = redis
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue(MAX_WAITING)

    def register(self, eio_sid: str) -> str:
        """Give a client its session id; the caller puts it into ``members``."""
        sid: str = self.server.eio.generate_id()
        self._eio_sids[sid] = eio_sid
        return sid

    def unregister(self, sid: str) -> None:
        """Forget a client, with the rooms and callbacks that it had."""
        self._eio_sids.pop(sid, None)
        self.members.pop(sid, None)
        self.callbacks.pop(sid, None)
        for name in [name for name, sids in self.other_rooms.items() if sid in sids]:
            self._leave_room(sid, name)

    def is_connected(self, sid: str, namespace: str) -> bool:
        """Tell whether this instance has the client."""
        return namespace in (None, "/") and sid in self._eio_sids

    def is_pre_connected(self, _sid: str, _namespace: str) -> bool:
        """Return False: nobody is ever half connected."""
        return False

    def eio_sid_from_sid(self, sid: str, _namespace: str) -> str | None:
        """Return the id of a client's transport."""
        return self._eio_sids.get(sid)

    def get_participants(self, namespace: str, room: str | list[str] | None) -> Iterable[tuple[str, str]]:
        """Yield the clients that are in a room."""
        if namespace == "/":
            for sid in self._addressed(room):
                yield sid, self._eio_sids[sid]

    def basic_enter_room(self, sid: str, _namespace: str, room: str, eio_sid: str | None = None) -> None:
        """Put a client into a room of another process's making."""
        if room != ROOM and room not in self.members and sid in self.members:
            self.other_rooms.setdefault(room, set()).add(sid)

    def basic_leave_room(self, sid: str, _namespace: str, room: str) -> None:
        """Take a client out of such a room; nobody leaves `chat`."""
        self._leave_room(sid, room)

    def basic_close_room(self, room: str, _namespace: str) -> None:
        """Forget such a room."""
        self.other_rooms.pop(room, None)

    def _leave_room(self, sid: str, room: str) -> None:
        sids = self.other_rooms.get(room, set())
        sids.discard(sid)
        if not sids:
            self.other_rooms.pop(room, None)

    async def _handle_disconnect(self, message: dict[str, Any]) -> None:
        """Close a client that another process disconnects."""
        eio_sid = self._eio_sids.get(message["sid"] or "")
        if eio_sid is not None:
            self.server.expel(eio_sid)

    def receive(self, payload: bytes) -> None:
        """Take what came over the channel and is not the log's."""
        try:
            self._inbox.put_nowait(payload)
        except asyncio.QueueFull:
            logger.warning("dropped an emit of another process: %d are waiting already", MAX_WAITING)
            self.metrics.foreign_emits.labels("dropped").inc()

    def initialize(self) -> None:
        """Do nothing: python-socketio would begin to listen here, at the first client; see :meth:`run`."""

    async def run(self) -> None:
        """Deliver what :meth:`receive` took, until cancelled."""
        await self._thread()

    async def _listen(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            payload = await self._inbox.get()
            try:
                message = json.loads(payload)
            except (ValueError, RecursionError) as error:
                logger.warning("dropped from the channel: not JSON: %s", error)
                continue
            emit = isinstance(message, dict) and message.get("method") == "emit"
            try:
                convert(message, _Emit if emit else _Request)
            except Invalid as error:
                logger.warning("dropped from the channel: %.200s", error)
                continue
            yield message

    async def _handle_leave_room(self, message: dict[str, Any]) -> None:
        if self._may_leave(message):
            await super()._handle_leave_room(message)

    async def _handle_close_room(self, message: dict[str, Any]) -> None:
        if self._may_leave(message):
            await super()._handle_close_room(message)

    def _may_leave(self, message: dict[str, Any]) -> bool:
        # To python-socketio a client without these is not connected: what it publishes is ignored.
        room = message.get("room")
        if isinstance(room, (str, int)) and not self.is_sid_room("/", room):
            return True
        logger.warning("dropped from the channel: %s of %r", message["method"], room)
        return False

    async def _publish(self, data: dict[str, Any]) -> None:
        try:
            payload = json.dumps(data)
        except (TypeError, ValueError, RecursionError) as error:
            # The channel carries JSON; a client's acknowledgement may have binary data in it.
            logger.warning("lost a %r for other instances: %s", data.get("method"), error)
            return
        try:
            await self._client.publish(self.channel, payload)
        except (RedisError, OSError):
            logger.exception("lost a %r for other instances", data.get("method"))
