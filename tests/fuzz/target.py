"""What a target is: something that takes bytes, and promises that hold whatever the bytes are."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random

__all__ = ["Check", "Target"]

Check = Callable[[bytes], None]
"""Raises, an AssertionError or whatever escapes the server, where a promise is broken."""


@dataclass(frozen=True)
class Target:
    """A part of the server under arbitrary input.

    ``share`` is how many of a thousand inputs it gets; ``opened`` sets up what is fuzzed, and checks on leaving
    that nothing was left behind; ``draws`` makes the source of inputs.
    """

    name: str
    share: int
    opened: Callable[[], AbstractContextManager[Check]]
    draws: Callable[[Random], Callable[[], bytes]]
