"""Ask a server on this machine whether it is alive: what a container engine wants to know every half minute."""

import http.client
from typing import Final

from ditochat.settings import Address

__all__ = ["Unhealthy", "check"]

_SECONDS: Final = 2.0  # for a connection, and for the answer


class Unhealthy(Exception):
    """The server does not answer, or not with 200; the text says which."""


def check(address: Address) -> None:
    """Return if ``GET /healthz`` at ``address``, where the server was told to listen, is answered with 200.

    Raises:
        Unhealthy: it is not, within two seconds.
    """
    # All interfaces are no place to connect to, and a free port chosen by the system is known to nobody.
    host = {None: "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104
    if address.port == 0:
        raise Unhealthy(f"ADDR {address} has no fixed port to ask at")
    connection = http.client.HTTPConnection(host or "localhost", address.port, timeout=_SECONDS)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise Unhealthy(f"no answer at {address}: {str(error) or type(error).__name__}") from error
    finally:
        connection.close()
    if status != http.client.OK:
        raise Unhealthy(f"GET /healthz at {address} was answered with {status}")
