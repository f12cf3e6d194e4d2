"""What was found once: each input goes through its target again."""

import pytest

from tests.fuzz.engine import script
from tests.fuzz.targets import TARGETS

REFUSED = "<" + "\x1e".join(['420["x"]'] * 60)
NO_NAMESPACE = "<" + "\x1e".join(["40/x,"] * 60)
PINGS = b"r" + (b"\x89\xfd\0\0\0\0" + b"p" * 125) * 60
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /messages HTTP/1.1\r\nHost: a\r\n"
POLLING_POST = b"POST /socket.io/?EIO=4&transport=polling&sid=$SID HTTP/1.1\r\nHost: a\r\n"

FINDINGS = {
    "a date that has no moment in UTC": (
        "messages", b'{"text":"a","date":"9999-12-31T23:59:00-23:59"}'
    ),
    "answers that are not read": ("chat", script("W", "<40", "z", *[REFUSED] * 12, "y")),
    "answers that are not fetched": ("chat", script("P", "<40", *[REFUSED] * 12, "g")),
    "refusals that are not read": ("chat", script("W", "z", *[NO_NAMESPACE] * 12, "y")),
    "pongs that are not read": ("chat", script("W", "<40", "z", *[PINGS] * 8, "y")),
    "an acknowledgement without an array": ("chat", script("W", "<40", "s", "<431")),
    "an acknowledgement with binary data": (
        "chat", script("W", "<40", "s", '<461-1[{"_placeholder":true,"num":0}]\x1ebAA==')
    ),
    "an acknowledgement of the id 0": ("chat", script("W", "<40", "s", "<430[]", "s")),
    "a request without a target": ("front", b"GET \r\n\r\n"),
    "a content type that is not UTF-8": ("front", POST + b"Content-Type: \x9e\r\n\r\n"),
    "a body that is not zipped": ("front", POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx"),
    "a polling body that is not zipped": (
        "front", POLLING_POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n40"
    ),
    "an expectation that is not UTF-8": ("front", GET + b"Expect: \x81\r\n\r\n"),
    "a date with a long number": ("front", GET + b"If-Modified-Since: 1 Jan 6 9999999999:0\r\n\r\n"),
}  # fmt: skip


@pytest.mark.parametrize(("target", "data"), FINDINGS.values(), ids=FINDINGS.keys())
def test_it_is_mended(target: str, data: bytes) -> None:
    with TARGETS[target].opened() as check:
        check(data)
