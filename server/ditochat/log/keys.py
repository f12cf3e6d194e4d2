"""The names in Redis; they are part of the contract, other programs use them."""

from typing import Final

__all__ = ["CHANNEL", "EPOCH_KEY", "ID_KEY", "LIST_KEY", "LOG_KEYS", "nonce_key"]

LIST_KEY: Final = "messages"
# The braces put every key into the slot of `messages`, should this ever be a cluster.
ID_KEY: Final = "{messages}:id"
EPOCH_KEY: Final = "{messages}:epoch"
LOG_KEYS: Final = (LIST_KEY, ID_KEY, EPOCH_KEY)
CHANNEL: Final = "socketio"


def nonce_key(nonce: str) -> str:
    """Return the key that holds the id which ``nonce`` got."""
    return f"{{messages}}:nonce:{nonce}"
