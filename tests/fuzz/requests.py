"""HTTP/1.1 requests as bytes, odd ones included; and what answers them, read as strictly as need be."""

import re
from collections.abc import Callable
from random import Random
from typing import Final

from tests.fuzz.mutation import JSON_TOKENS, Mutator

__all__ = ["SID", "complete_requests", "draws", "statuses", "websocket_bytes"]

SID: Final = b"$SID"
"""Stands in an input for the id of a session that polls."""

_REQUEST: Final = re.compile(
    rb"(?:GET|POST|HEAD|OPTIONS|PUT|DELETE) /[!-~]* HTTP/1\.1\r\n"
    rb"(?P<headers>(?:[A-Za-z-]+: [!-~]+\r\n)*)\r\n"
)
# What changes where a request ends, or how many answers there are.
_SPECIAL: Final = re.compile(
    rb"^(?:transfer-encoding|upgrade|expect|connection|content-encoding|sec-websocket-[a-z]+):",
    re.IGNORECASE | re.MULTILINE,
)
_LENGTH: Final = re.compile(rb"^content-length: (.*)\r$", re.IGNORECASE | re.MULTILINE)
_CHUNKED: Final = re.compile(rb"^transfer-encoding: chunked\r$", re.IGNORECASE | re.MULTILINE)
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]+)\r\n")
_ANSWER: Final = re.compile(
    rb"HTTP/[0-9]\.[0-9] ([1-5][0-9][0-9]) [^\r\n]*\r\n((?:[!-9;-~]+:[^\r\n]*\r\n)*)\r\n"
)


def complete_requests(data: bytes) -> int:
    """Count the plain, complete requests with which the input begins."""
    count = position = 0
    while (found := _REQUEST.match(data, position)) is not None and not _SPECIAL.search(found["headers"]):
        lengths = _LENGTH.findall(found["headers"])
        if len(lengths) > 1 or not all(re.fullmatch(rb"0|[1-9][0-9]{0,6}", length) for length in lengths):
            break
        position = found.end() + (int(lengths[0]) if lengths else 0)
        if position > len(data):
            break
        count += 1
    return count


def statuses(received: bytes) -> list[int]:
    """Return the status of each answer; interim ones do not count.

    What follows the head of an answer is its body, unless it begins as another answer: HEAD has no body.
    """
    found: list[int] = []
    position = 0
    while position < len(received):
        answer = _ANSWER.match(received, position)
        assert answer is not None, f"not an HTTP answer: {received[position : position + 80]!r}"
        status, position = int(answer[1]), answer.end()
        assert status < 500 or status == 503, received[:500]
        if status == 100:
            continue
        found.append(status)
        if status == 101:
            break
        lengths = _LENGTH.findall(answer[2])
        assert len(lengths) <= 1
        if received.startswith(b"HTTP/", position):
            continue
        if lengths:
            position += int(lengths[0])
        elif _CHUNKED.search(answer[2]):
            while (chunk := _CHUNK.match(received, position)) is not None:
                position = chunk.end() + int(chunk[1], 16) + 2
                if int(chunk[1], 16) == 0:
                    break
    return found


def websocket_bytes(received: bytes) -> bytes | None:
    """Return what follows the answer that accepts a WebSocket, if one does."""
    head, accepted, _ = received.rpartition(b"HTTP/1.1 101 ")
    return received[len(head) :].partition(b"\r\n\r\n")[2] if accepted else None


def _request(method: str, target: str, body: str = "", **headers: str) -> bytes:
    lines = {"Host": "localhost:8080"} | ({"Content-Length": str(len(body.encode()))} if body else {})
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n{body}".encode()


def _handshake(target: str, **headers: str) -> bytes:
    given = {
        "Connection": "keep-alive, Upgrade",
        "Upgrade": "websocket",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    return _request("GET", target, **{**given, **headers})


def _frame(opcode: int, payload: bytes) -> bytes:
    """One short frame of a client, masked with nothing: it is the same each time."""
    return bytes((0x80 | opcode, 0x80 | len(payload))) + bytes(4) + payload


def draws(random: Random) -> Callable[[], bytes]:
    """Return a source of requests; those of a pipeline are steps that may change places."""
    json = {"Content_Type": "application/json"}
    hello = '{"text":"hello"}'
    polling, websocket = "/socket.io/?EIO=4&transport=polling", "/socket.io/?EIO=4&transport=websocket"
    text = _frame(1, b"hello")
    seeds = [
        _request("GET", "/messages"),
        _request("GET", "/messages?limit=2&before=5&after=1", Accept_Encoding="gzip;q=0.5, *;q=0"),
        _request("GET", "/messages?at_least=9", Origin="http://elsewhere"),
        _request("GET", "/messages", If_None_Match='W/"epoch.5", *', Range="bytes=0-10"),
        _request("POST", "/messages", hello, **json),
        _request("POST", "/messages", hello, Idempotency_Key="n1", Origin="http://localhost:8080", **json),
        _request("POST", "/messages", "x" * 300, Content_Encoding="gzip", **json),
        _request("POST", "/messages", "x" * 300, Content_Encoding="deflate", **json),
        _request("POST", "/messages", **json, Transfer_Encoding="chunked")
        + b'5\r\n"abcd\r\n1\r\n"\r\n0\r\n\r\n',
        _request("POST", "/messages", hello, Expect="100-continue", **json),
        _request("POST", "/messages", "a=b", Content_Type="multipart/form-data; boundary=x"),
        _request("GET", "/healthz") + _request("GET", "/readyz") + _request("HEAD", "/metrics"),
        _request("GET", "/healthz", Connection="close") + _request("GET", "/healthz"),
        _request("OPTIONS", "/messages", Origin="null", Access_Control_Request_Method="POST"),
        _request("PUT", "/messages", hello),
        _request("DELETE", "/nothing/at/all"),
        _request("GET", "/", If_Modified_Since="Sat, 31 Jan 2026 12:00:00 GMT"),
        _request("GET", "/socket.io/socket.io.min.js", Range="bytes=5-"),
        _request("GET", "/%2e%2e/%2e%2e/etc/passwd"),
        _request("GET", "/a%00b?c=%ff&%zz"),
        _request("GET", polling),
        _request("GET", f"{polling}&sid=$SID"),
        _request("POST", f"{polling}&sid=$SID", '40\x1e420["message","hi"]'),
        _request("POST", f"{polling}&sid=$SID", "2nonsense"),
        _request("POST", f"{polling}&sid=$SID", "40", Content_Encoding="gzip"),
        _request("POST", f"{polling}&sid=$SID", Transfer_Encoding="chunked") + b"2\r\n40\r\n0\r\n\r\n",
        _request("GET", f"{polling}&sid=unknown"),
        _request("GET", "/socket.io/?EIO=3&transport=polling"),
        _handshake(websocket) + _frame(1, b"40") + _frame(1, b'420["message","hi"]'),
        _handshake(f"{websocket}&sid=$SID") + _frame(1, b"2probe") + _frame(1, b"5"),
        _handshake(f"{websocket}&sid=unknown"),
        _handshake("/ws") + text,
        _handshake("/ws?after=2&epoch=epoch", Origin="http://localhost:8080") + text + _frame(8, b"\x03\xe8"),
        _handshake("/ws?after=99"),
        _handshake("/ws?after=x"),
        _handshake("/ws", Sec_WebSocket_Key="short"),
        _handshake("/ws", Origin="http://elsewhere"),
        _handshake("/ws", Sec_WebSocket_Version="8"),
        _handshake("/elsewhere"),
        _request("GET", "/healthz") + _handshake("/ws") + text,
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET http://localhost/healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ]
    tokens = [
        b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b": ", b":", b"\t", b"Host: a\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n",
        b"Content-Length: 2000000\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"ffffffffffffffff\r\n",
        b"0\r\n\r\n",
        b"Connection: Upgrade\r\n", b"Connection: close\r\n", b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n",
        b"Expect: 100-continue\r\n", b"Expect: x\r\n", b"Origin: http://[::1\r\n",
        b"Origin: http://a:99999\r\n",
        b"Origin: \xff\r\n", b"Host: \xff\r\nOrigin: http://\xff\r\n", b"Host: [\r\n",
        b"X-Forwarded-Host: localhost:8080\r\n", b"Accept-Encoding: gzip\r\n",
        b"Content-Type: application/json; charset=utf-99\r\n", b"Content-Type: ;;;\r\n",
        b"Cookie: a=\"\x01\r\n",
        b"Content-Encoding: br\r\n", b"Content-Encoding: gzip\r\n", b"Range: bytes=-0\r\n",
        b"Range: bytes=9-1,2-3\r\n",
        b"If-Modified-Since: Mon, 99 Foo 0000 99:99:99 GMT\r\n", b"If-Range: x\r\n", b"If-None-Match: \"\r\n",
        b"X: " + b"x" * 9000 + b"\r\n", b"X-Many: 1\r\n" * 200, b"/" * 9000, b"%", b"%00", b"%ff",
        b"%2e%2e/", b"//",
        b"?EIO=4", b"&transport=websocket", b"&sid=$SID", b"&sid=", b"?after=1", b"&after=" + b"9" * 17,
        b"?limit=0",
        b"?limit=" + b"9" * 5000, b"?at_least=5", "?limit=\u0663".encode(), b"?" + b"&a=b" * 2000, b"#",
        b"HTTP/1.0",
        b"HTTP/9.9", b"\x00", b"\xff", b"\x89\x80\0\0\0\0", b"\x81\xfe\xff\xff", *JSON_TOKENS,
    ]  # fmt: skip
    return Mutator(random, seeds, tokens, separator=b"\r\n").draw
