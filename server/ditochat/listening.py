"""Listening for connections: how many may wait, and what becomes of them where files run out."""

import asyncio
import errno
import logging
import os
import resource
import socket
import time
from collections.abc import Callable
from typing import Any, Final

__all__ = ["SPARE_FILES", "FileLimit", "listen"]

logger = logging.getLogger(__name__)

# Connections that the kernel keeps for us, as after a restart, when all clients come at once.
BACKLOG: Final = 4096
# asyncio accepts up to its own backlog in one turn of the loop, during which all others wait. And where there is
# no file for a connection, it logs, and sets a timer, as often: 4096 times a second. (With 16, a connect took 10 %
# more CPU than with 4096; with 64 it takes the same, within 5 %.)
ACCEPTS_AT_ONCE: Final = 64
# Of the files that this process may have open, those that no client gets: connections to Redis have to be opened
# again after a failure, and pages are served from files. A client is sent away in the third turn of the loop after
# it was accepted; where more come until then, the rest waits for a second.
SPARE_FILES: Final = 64
REPORT_SECONDS: Final = 10.0
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


async def listen(protocol: Callable[[], asyncio.Protocol], host: str | None, port: int) -> asyncio.Server:
    """Accept connections on all addresses of ``host``, or of this machine.

    Raises:
        OSError: the address is in use, or is none of this machine's.
    """
    server = await asyncio.get_running_loop().create_server(protocol, host, port, backlog=ACCEPTS_AT_ONCE)
    for listener in server.sockets:
        with socket.socket(fileno=os.dup(listener.fileno())) as same:
            same.listen(BACKLOG)
    return server


class FileLimit:
    """Keeps files back for what is not a client, and says now and then that clients had to go without one."""

    def __init__(self) -> None:
        self._said = float("-inf")

    def raise_to_hard(self) -> None:
        """Take as many files as we may: each client needs one."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # macOS says "unlimited" and means less
            logger.debug("the limit of open files stays as it is")

    def admits(self, transport: asyncio.Transport) -> bool:
        """Tell whether a new connection leaves enough files for what is not a client.

        (The kernel gives out the lowest number that is free.)
        """
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        descriptor = transport.get_extra_info("socket").fileno()
        if limit == resource.RLIM_INFINITY or descriptor < limit - SPARE_FILES:
            return True
        self._say("no file is left for new clients: they are sent away")
        return False

    def report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Do as the loop's exception handler, but say in one line that connections cannot be accepted."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _EXHAUSTED and "socket" in context:
            self._say(f"new connections wait: {os.strerror(error.errno)}")
        else:
            loop.default_exception_handler(context)

    def _say(self, text: str) -> None:
        now = time.monotonic()
        if now - self._said >= REPORT_SECONDS:
            self._said = now
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            logger.warning("%s; this process may have %d open", text, limit)
