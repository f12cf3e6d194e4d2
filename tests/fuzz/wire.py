"""A transport that leads nowhere: it keeps what is written, and behaves as asyncio's own to its protocol."""

import asyncio
from typing import Any

__all__ = ["Wire"]


class Wire(asyncio.Transport):
    """One connection.

    ``received`` is what its peer has read; while that one does not read, the wire asks for a pause, as a socket's.
    """

    def __init__(self, protocol: asyncio.BaseProtocol | None = None) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self._protocol = protocol
        self._waiting = bytearray()
        self._closing = False
        self._high = 64 * 1024
        self._paused = False
        self.received = bytearray()
        self.peer_reads = True
        self.reading = True
        self.lost = False

    def feed(self, data: bytes) -> None:
        """Have the protocol take bytes of the peer's, if it still would get them."""
        if not self._closing and data:
            assert isinstance(self._protocol, asyncio.Protocol)
            self._protocol.data_received(data)

    def hang_up(self) -> None:
        """The peer ends its half of the connection."""
        if not self._closing:
            assert isinstance(self._protocol, asyncio.Protocol)
            if not self._protocol.eof_received():
                self.close()

    def stop_reading(self) -> None:
        """The peer reads no more."""
        self.peer_reads = False

    def read_on(self) -> None:
        """The peer reads all that waits."""
        self.peer_reads = True
        while self._waiting and not self.lost:
            self.received += self._waiting
            self._waiting.clear()
            if self._paused:
                self._paused = False
                self._told.resume_writing()
            if self._closing:
                self._lose_soon(None)

    @property
    def _told(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def _lose_soon(self, error: Exception | None) -> None:
        asyncio.get_running_loop().call_soon(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        if not self.lost:
            self.lost = True
            self._waiting.clear()
            self._told.connection_lost(error)

    # asyncio's interface.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.lost:
            return
        if self.peer_reads:
            self.received += data
            return
        self._waiting += data
        if not self._paused and len(self._waiting) > self._high:
            self._paused = True
            self._told.pause_writing()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._waiting:
                self._lose_soon(None)

    def abort(self) -> None:
        self._closing = True
        self._lose_soon(None)

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._told

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return len(self._waiting)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 0, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 64 * 1024 if high is None else high

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return super().get_extra_info(name, default)
