"""All targets, by name."""

from collections.abc import Mapping
from typing import Final

from tests.fuzz import chat, engine, frames, front, http, messages, packets
from tests.fuzz.target import Target

__all__ = ["TARGETS"]

TARGETS: Final[Mapping[str, Target]] = {
    module.TARGET.name: module.TARGET for module in (frames, packets, messages, engine, chat, front, http)
}
