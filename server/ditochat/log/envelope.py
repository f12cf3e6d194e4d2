"""How a message of the log travels on the channel: as an emit of python-socketio's ``AsyncRedisManager``.

Pure. The append script writes the envelope around the message's text; its ``host_id`` names the epoch, which
tells the log's own messages from what other processes emit. The format is python-socketio's
(``AsyncPubSubManager.emit``), so any manager on the channel can read it.
"""

from typing import Final

__all__ = ["AFTER", "BEFORE", "ROOM", "open_envelope"]

ROOM: Final = "chat"
BEFORE: Final = b'{"method":"emit","event":"message","data":['
AFTER: Final = (
    b'],"binary":false,"namespace":"/","room":"chat","skip_sid":null,"callback":null,"host_id":"log:'
)
_END: Final = b'"}'


def open_envelope(payload: bytes) -> tuple[str, bytes] | None:
    """Return the epoch and the message's text, or ``None`` where the payload is not the log's own."""
    if not (payload.startswith(BEFORE) and payload.endswith(_END)):
        return None
    # From the right: what stands in the message itself is to the left of it.
    after = payload.rfind(AFTER)
    if after < 0:
        return None
    return payload[after + len(AFTER) : -len(_END)].decode(errors="replace"), payload[len(BEFORE) : after]
