"""Inputs by the million: what is valid, spoilt in a few places. Random bytes alone never get past the first check.

All is drawn from one seeded generator, so a seed and a number of inputs say exactly which inputs they are.
"""

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

__all__ = ["JSON_TOKENS", "Mutator", "shrunk"]

JSON_TOKENS: Final = (
    b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"null", b"true", b"0", b"-1", b"-0", b"1e999", b"-1e-999",
    b"NaN", b"Infinity", b"9007199254740993", b"1" * 400, b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'""',
    b'" "', b'"\\u2028"', b'"' + "\U0001f600".encode() + b'"', b"[]", b"{}", b"[" * 40 + b"]" * 40, b"[" * 1100,
    b'{"a":' * 40 + b"1" + b"}" * 40, b'"text":', b'"id":1,"ts":2,', b'"nonce":"n",', b'"date":"",',
    b'"date":"0001-01-01T00:00:00+23:59",', b'"uid":"' + b"u" * 129 + b'",', b'"__proto__":1,', b'"":"",',
)  # fmt: skip
"""What other people's JSON has in it."""

MAX_INPUT_BYTES: Final = 64 * 1024
_JSON_VALUE: Final = re.compile(
    rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|\[\]|\{\}'
)
_NUMBER: Final = re.compile(rb"\d+")
_ODD_BYTES: Final = b"\x00\x01\x1e\x1f\x20\x7f\x80\xc0\xed\xff\r\n"
_ODD_NUMBERS: Final = (b"0", b"-1", b"00", b"1e3", b"255", b"65536", b"2147483648", b"9" * 20, b"9" * 5000)


class Mutator:
    """Draws from ``seeds`` and spoils; ``tokens`` are put in whole, ``separator`` parts an input into steps."""

    def __init__(
        self, random: Random, seeds: Sequence[bytes], tokens: Sequence[bytes], separator: bytes
    ) -> None:
        self._random = random
        self._seeds = seeds
        self._tokens = tokens
        self._separator = separator
        # Those that know the structure get further, so they are drawn more often.
        self._ways: tuple[Callable[[bytes], bytes], ...] = (
            self._other_step, self._other_step, self._step_again, self._step_away, self._steps_swapped,
            self._other_token, self._other_token, self._other_value, self._other_value, self._other_number,
            self._other_byte, self._bit, self._cut_out, self._cut_off, self._again,
        )  # fmt: skip

    def draw(self) -> bytes:
        """Return the next input: now and then a seed as it is."""
        random = self._random
        data = random.choice(self._seeds)
        # Mostly few: what is spoilt in many places is refused at the first.
        for _ in range(int(random.expovariate(0.5))):
            data = random.choice(self._ways)(data)
        return data[:MAX_INPUT_BYTES]

    def _steps(self, data: bytes) -> list[bytes]:
        return data.split(self._separator)

    def _other_step(self, data: bytes) -> bytes:
        """Put in a step of another seed."""
        steps = self._steps(data)
        other = self._random.choice(self._steps(self._random.choice(self._seeds)))
        position = self._random.randint(0, len(steps))
        steps[position : position + self._random.randint(0, 1)] = [other]
        return self._separator.join(steps)

    def _step_again(self, data: bytes) -> bytes:
        """Repeat a step, sometimes often."""
        steps = self._steps(data)
        position = self._random.randrange(len(steps))
        times = self._random.choice((1, 1, 2, 3, 40))
        steps[position:position] = [steps[position]] * times
        return self._separator.join(steps)

    def _step_away(self, data: bytes) -> bytes:
        steps = self._steps(data)
        del steps[self._random.randrange(len(steps))]
        return self._separator.join(steps)

    def _steps_swapped(self, data: bytes) -> bytes:
        steps = self._steps(data)
        one, two = (self._random.randrange(len(steps)) for _ in range(2))
        steps[one], steps[two] = steps[two], steps[one]
        return self._separator.join(steps)

    def _other_token(self, data: bytes) -> bytes:
        """Put a token in, or in place of something."""
        start = self._random.randint(0, len(data))
        stop = start + self._random.choice((0, 0, 1, 4))
        return data[:start] + self._random.choice(self._tokens) + data[stop:]

    def _other_value(self, data: bytes) -> bytes:
        """Replace a value of JSON by another."""
        found = list(_JSON_VALUE.finditer(data[:4096]))
        if not found:
            return self._other_token(data)
        spot = self._random.choice(found)
        return data[: spot.start()] + self._random.choice(self._tokens) + data[spot.end() :]

    def _other_number(self, data: bytes) -> bytes:
        found = list(_NUMBER.finditer(data[:4096]))
        if not found:
            return self._other_byte(data)
        spot = self._random.choice(found)
        return data[: spot.start()] + self._random.choice(_ODD_NUMBERS) + data[spot.end() :]

    def _other_byte(self, data: bytes) -> bytes:
        start = self._random.randint(0, len(data))
        odd = self._random.choice(_ODD_BYTES) if self._random.random() < 0.5 else self._random.randrange(256)
        return data[:start] + bytes((odd,)) + data[start + self._random.randint(0, 1) :]

    def _bit(self, data: bytes) -> bytes:
        if not data:
            return data
        start = self._random.randrange(len(data))
        return data[:start] + bytes((data[start] ^ 1 << self._random.randrange(8),)) + data[start + 1 :]

    def _cut_out(self, data: bytes) -> bytes:
        start = self._random.randint(0, len(data))
        return data[:start] + data[start + self._random.randint(1, 16) :]

    def _cut_off(self, data: bytes) -> bytes:
        return data[: self._random.randint(0, len(data))]

    def _again(self, data: bytes) -> bytes:
        """Repeat some bytes, sometimes often."""
        start = self._random.randint(0, len(data))
        piece = data[start : start + self._random.randint(1, 32)]
        return data[:start] + piece * self._random.choice((1, 2, 8, 300)) + data[start:]


def shrunk(data: bytes, still_fails: Callable[[bytes], bool], tries: int = 150) -> bytes:
    """Return a shorter input that fails, too: pieces are left out, ever smaller ones."""
    size = max(1, len(data) // 2)
    while size and tries > 0:
        start = 0
        while start < len(data) and tries > 0:
            tries -= 1
            shorter = data[:start] + data[start + size :]
            if still_fails(shorter):
                data = shorter
            else:
                start += size
        size //= 2
    return data
