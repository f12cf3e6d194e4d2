"""The settings: one frozen object, built once at start from the environment and the command line.

Nothing here reads a file, the network or the process' own environment, and nothing is set up:
mappings of text go in, :class:`Settings` or :class:`BadSetting` comes out.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

__all__ = [
    "DESCRIPTIONS",
    "Address",
    "BadSetting",
    "Description",
    "LogFormat",
    "LogLevel",
    "Settings",
    "load",
    "masked",
    "normal_origin",
]

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]

_LOG_LEVELS: dict[str, LogLevel] = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
}
_LOG_FORMATS: dict[str, LogFormat] = {"text": "text", "json": "json"}

_MAX_WAIT_REPLICAS = 10
"""No Redis has so many replicas for its messages' safety: more is a mistake in the setting."""

_MAX_HISTORY = 100_000
"""Messages. The history is kept in the memory of every instance, and sent as one JSON array."""

_MIN_MESSAGE_BYTES = 256
"""Room for the fields that the server adds, and for a few words."""

_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Redis takes up to 512 MB in one value; a *chat* message beyond this is a mistake in the setting."""

_MIN_SEND_BUFFER_BYTES = 64 * 1024
"""Less than asyncio's own high-water mark would close clients which are merely a little late."""

_MAX_SEND_BUFFER_BYTES = 1024 * 1024 * 1024

_MIN_HEARTBEAT_SECONDS = 0.001
"""The handshake announces whole milliseconds: anything below would be announced as 0."""

_MAX_SECONDS = 86_400.0
"""A day. JavaScript's setTimeout fires *at once* beyond 2**31 ms, and would drop every client."""

_MAX_SHOWN = 200
"""Characters of a value that an error repeats."""

T = TypeVar("T")


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know of one setting; ``--help`` and the README's table say the same.

    ``default`` is written as the variable would be, None where there is none; ``expected`` completes
    the sentence "expected ..." in an error.
    """

    name: str
    default: str | None
    meaning: str
    expected: str
    without: str = "none"

    @property
    def flag(self) -> str:
        """The flag of the same name: ``--history-limit`` for ``HISTORY_LIMIT``."""
        return "--" + self.name.lower().replace("_", "-")

    @property
    def shown_default(self) -> str:
        """The default as a reader should see it."""
        return self.without if self.default is None else self.default


DESCRIPTIONS: tuple[Description, ...] = (
    Description(
        name="ADDR",
        default=":8080",
        meaning="where to listen, host:port; without a host on all interfaces, with port 0 on any free port",
        expected="host:port, :port or [IPv6 address]:port, with a port from 0 to 65535",
    ),
    Description(
        name="REDIS_URL",
        default=None,
        meaning="redis://, rediss://, unix:// or redis+sentinel://host:port,host:port/db/service",
        expected=(
            "redis://host[:port][/db], rediss://host[:port][/db], unix:///path or "
            "redis+sentinel://host:port,host:port/db/service, "
            "special characters of a user name or password percent-encoded"
        ),
    ),
    Description(
        name="REDIS_ADDR",
        default=None,
        meaning="host:port of a Redis, the Go backend's spelling of the same; REDIS_URL wins",
        expected="host:port, with a port from 1 to 65535",
    ),
    Description(
        name="REDIS_WAIT_REPLICAS",
        default="0",
        meaning="replicas that must have a message before it is acknowledged; 0 for none",
        expected=f"an integer from 0 to {_MAX_WAIT_REPLICAS}",
    ),
    Description(
        name="DATA_DIR",
        default="./data",
        meaning="where the embedded Valkey keeps its data; used with neither REDIS_URL nor REDIS_ADDR",
        expected="the path of a directory",
    ),
    Description(
        name="ALLOWED_ORIGIN",
        default=None,
        meaning="browser origins that may connect and read, separated by commas; * is any",
        expected=(
            "origins like https://chat.example or http://localhost:3000, separated by commas, "
            "without a path; or * for any"
        ),
        without="same origin",
    ),
    Description(
        name="HISTORY_LIMIT",
        default="1000",
        meaning="messages kept and served",
        expected=f"an integer from 1 to {_MAX_HISTORY}",
    ),
    Description(
        name="MAX_MESSAGE_BYTES",
        default="4096",
        meaning="largest message, as stored",
        expected=f"an integer from {_MIN_MESSAGE_BYTES} to {_MAX_MESSAGE_BYTES}",
    ),
    Description(
        name="SEND_BUFFER_BYTES",
        default="1048576",
        meaning="what one slow client may have waiting before it is closed; at least MAX_MESSAGE_BYTES",
        expected=f"an integer from {_MIN_SEND_BUFFER_BYTES} to {_MAX_SEND_BUFFER_BYTES}",
    ),
    Description(
        name="DRAIN_SECONDS",
        default="10",
        meaning="over how long clients are moved away at shutdown",
        expected=f"seconds, a decimal number from 0 to {_MAX_SECONDS:.0f}",
    ),
    Description(
        name="PING_INTERVAL",
        default="25",
        meaning="seconds between two heartbeats",
        expected=f"seconds, a decimal number from {_MIN_HEARTBEAT_SECONDS} to {_MAX_SECONDS:.0f}",
    ),
    Description(
        name="PING_TIMEOUT",
        default="20",
        meaning="seconds that a client has to answer a heartbeat",
        expected=f"seconds, a decimal number from {_MIN_HEARTBEAT_SECONDS} to {_MAX_SECONDS:.0f}",
    ),
    Description(
        name="LOG_LEVEL",
        default="info",
        meaning="debug, info, warning or error",
        expected=f"one of {', '.join(_LOG_LEVELS)}",
    ),
    Description(
        name="LOG_FORMAT",
        default="text",
        meaning="text, or json for one JSON object a line",
        expected=f"one of {', '.join(_LOG_FORMATS)}",
    ),
)
"""Every setting, in the order of the documentation."""

_BY_NAME = {description.name: description for description in DESCRIPTIONS}

_EMPTY_FLAG_MEANS_NONE = frozenset({"REDIS_URL", "REDIS_ADDR", "ALLOWED_ORIGIN"})
"""Here an empty flag has a meaning: it takes back what the environment says."""


class BadSetting(ValueError):
    """A setting has a value that it cannot have; the text is one line.

    Args:
        name: as the setting was spelt, ``HISTORY_LIMIT`` or ``--history-limit``.
        value: what was given; kept with passwords masked.
        expected: what would have been accepted.
    """

    name: str
    value: str
    expected: str

    def __init__(self, name: str, value: str, expected: str) -> None:
        self.name = name
        self.value = masked(value)
        self.expected = expected
        super().__init__(name, self.value, expected)

    def __str__(self) -> str:
        shown = self.value
        if len(shown) > _MAX_SHOWN:
            shown = shown[:_MAX_SHOWN] + "..."
        return f"{self.name}={shown!r}: expected {self.expected}"


class Address(msgspec.Struct, frozen=True):
    """Where to listen: ``host`` None is all interfaces, ``port`` 0 any free one."""

    host: str | None
    port: int

    def __str__(self) -> str:
        if self.host is None:
            return f":{self.port}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the server was told, checked; :data:`DESCRIPTIONS` says what each field means.

    ``redis_url`` None is the embedded Valkey. ``allowed_origins`` is empty for the same origin only
    and ``("*",)`` for any; else its members are as :func:`normal_origin` returns them.
    ``drain_seconds``, ``ping_interval`` and ``ping_timeout`` are seconds.
    """

    addr: Address
    redis_url: str | None
    redis_wait_replicas: int
    data_dir: Path
    allowed_origins: tuple[str, ...]
    history_limit: int
    max_message_bytes: int
    send_buffer_bytes: int
    drain_seconds: float
    ping_interval: float
    ping_timeout: float
    log_level: LogLevel
    log_format: LogFormat

    def __repr__(self) -> str:
        shown = msgspec.structs.asdict(self)
        if self.redis_url is not None:
            shown["redis_url"] = masked(self.redis_url)
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


def load(environment: Mapping[str, str], flags: Mapping[str, str]) -> Settings:
    """Build the settings.

    Args:
        environment: the process' environment; others' variables are ignored, and an empty one of
            ours counts as not set.
        flags: the command line's, keyed by the *variable's* name; a flag wins over its variable.
            An empty ``REDIS_URL``, ``REDIS_ADDR`` or ``ALLOWED_ORIGIN`` takes the variable back.

    Raises:
        BadSetting: one has a value that it cannot have, or ``flags`` has an unknown name.
    """
    for name, text in flags.items():
        if name not in _BY_NAME:
            raise BadSetting(ascii(name), text, f"one of the names {', '.join(_BY_NAME)}")
    given = _Given(environment, flags)
    redis_url = given.optional("REDIS_URL", _redis_url)
    redis_addr = given.optional("REDIS_ADDR", _redis_addr)
    settings = Settings(
        addr=given.required("ADDR", _address),
        redis_url=redis_addr if redis_url is None else redis_url,
        redis_wait_replicas=given.required("REDIS_WAIT_REPLICAS", _integer(0, _MAX_WAIT_REPLICAS)),
        data_dir=given.required("DATA_DIR", _path),
        allowed_origins=given.optional("ALLOWED_ORIGIN", _origins) or (),
        history_limit=given.required("HISTORY_LIMIT", _integer(1, _MAX_HISTORY)),
        max_message_bytes=given.required(
            "MAX_MESSAGE_BYTES", _integer(_MIN_MESSAGE_BYTES, _MAX_MESSAGE_BYTES)
        ),
        send_buffer_bytes=given.required(
            "SEND_BUFFER_BYTES", _integer(_MIN_SEND_BUFFER_BYTES, _MAX_SEND_BUFFER_BYTES)
        ),
        drain_seconds=given.required("DRAIN_SECONDS", _seconds(0)),
        ping_interval=given.required("PING_INTERVAL", _seconds(_MIN_HEARTBEAT_SECONDS)),
        ping_timeout=given.required("PING_TIMEOUT", _seconds(_MIN_HEARTBEAT_SECONDS)),
        log_level=given.required("LOG_LEVEL", lambda text: _choice(text, _LOG_LEVELS)),
        log_format=given.required("LOG_FORMAT", lambda text: _choice(text, _LOG_FORMATS)),
    )
    # The embedded Valkey has no replica: nothing would ever be acknowledged.
    if settings.redis_url is None and settings.redis_wait_replicas:
        raise BadSetting(
            given.label("REDIS_WAIT_REPLICAS"),
            str(settings.redis_wait_replicas),
            "0, because anything above needs REDIS_URL or REDIS_ADDR",
        )
    # Else one legal message would close every client that is a moment late, again at each replay.
    if settings.send_buffer_bytes < settings.max_message_bytes:
        raise BadSetting(
            given.label("SEND_BUFFER_BYTES"),
            str(settings.send_buffer_bytes),
            f"at least MAX_MESSAGE_BYTES, {settings.max_message_bytes}",
        )
    return settings


class _Expected(ValueError):
    """A value was refused for a reason worth more than the setting's general ``expected``."""

    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.expected = expected


class _Given:
    """What was given for each setting, and where."""

    def __init__(self, environment: Mapping[str, str], flags: Mapping[str, str]) -> None:
        self._environment = environment
        self._flags = flags

    def label(self, name: str) -> str:
        """How the user spelt the setting."""
        return _BY_NAME[name].flag if name in self._flags else name

    def required(self, name: str, parse: Callable[[str], T]) -> T:
        text = self._text(name)
        if text is None:
            raise AssertionError(f"{name} has no default")
        return self._parsed(name, text, parse)

    def optional(self, name: str, parse: Callable[[str], T]) -> T | None:
        text = self._text(name)
        return None if text is None else self._parsed(name, text, parse)

    def _text(self, name: str) -> str | None:
        flag = self._flags.get(name)
        if flag == "" and name in _EMPTY_FLAG_MEANS_NONE:
            return None
        if flag is not None:
            return flag
        return self._environment.get(name) or _BY_NAME[name].default

    def _parsed(self, name: str, text: str, parse: Callable[[str], T]) -> T:
        try:
            return parse(text)
        except _Expected as error:
            expected = error.expected
        except ValueError:
            expected = _BY_NAME[name].expected
        # Raised outside of the handlers: what urllib and ipaddress say may repeat a password.
        raise BadSetting(self.label(name), text, expected)


# Numbers and words. int() and float() are more generous than a setting should be: " 1_0\n", "1e999".

_INTEGER = re.compile(r"[0-9]{1,18}")
_DECIMAL = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")


def _integer(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not _INTEGER.fullmatch(text) or not least <= int(text) <= most:
            raise ValueError
        return int(text)

    return parse


def _seconds(least: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not _DECIMAL.fullmatch(text) or not least <= float(text) <= _MAX_SECONDS:
            raise ValueError
        return float(text)

    return parse


def _choice(text: str, choices: Mapping[str, T]) -> T:
    choice = choices.get(text.lower())
    if choice is None:
        raise ValueError
    return choice


def _path(text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise ValueError
    return Path(text)


# Hosts and ports, alone and in URLs.

_MAX_HOST_LENGTH = 253
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*\.?")
_ONLY_NUMBERS = re.compile(r"[0-9.]+")
_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_HOST_PORT = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(:(?P<port>[0-9]{1,5}))?")
_MAX_PORT = 65_535


def _host_port(text: str) -> tuple[str, int | None]:
    """Take ``host:port`` apart; the host keeps the brackets of an IPv6 address, the port may be missing."""
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise ValueError
    port = None if match["port"] is None else int(match["port"])
    if port is not None and port > _MAX_PORT:
        raise ValueError
    return match["host"], port


def _check_host(host: str) -> None:
    if host.startswith("["):
        # A zone (fe80::1%eth0) has no agreed spelling in URLs; only an address to listen on may have one.
        if "%" in host:
            raise ValueError
        ipaddress.IPv6Address(host[1:-1])
    elif _ONLY_NUMBERS.fullmatch(host):
        ipaddress.IPv4Address(host)
    elif len(host) > _MAX_HOST_LENGTH or not _HOST_NAME.fullmatch(host):
        raise ValueError


def _address(text: str) -> Address:
    host, port = _host_port(text)
    if port is None:
        raise ValueError
    if not host:
        return Address(None, port)
    address, percent, zone = host.strip("[]").partition("%")
    if percent:
        if not host.startswith("[") or not _ZONE.fullmatch(zone):
            raise ValueError
        _check_host(f"[{address}]")
        return Address(f"{address}%{zone}", port)
    _check_host(host)
    return Address(address, port)


# Redis.

# ASCII without spaces: urllib drops line breaks, and refuses letters that normalise to "/" or "@".
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"((?P<userinfo>[^/?#\[\]]*)@)?(?P<hosts>[^/?#@]*)"
    r"(?P<path>/[^?#]*)?(\?(?P<query>[^#]*))?"
)
_VISIBLE_ASCII = re.compile(r"[!-~]+")
_DATABASE_PATH = re.compile(r"/?|/[0-9]{1,9}")
_SENTINEL_PATH = re.compile(r"/[0-9]{1,9}/[^/]+")

# What else redis-py would take from a URL are arguments of its connections: an unknown one fails when
# the first connection is made, and timeouts and names are the server's own (it promises an answer in 2 s).
_URL_OPTIONS = {
    "db": re.compile(r"[0-9]{1,9}"),
    "password": re.compile(r".+", re.DOTALL),
    "username": re.compile(r".+", re.DOTALL),
}
_TLS_OPTIONS = {
    "ssl_ca_certs": re.compile(r"[^\0]+"),
    "ssl_ca_path": re.compile(r"[^\0]+"),
    "ssl_cert_reqs": re.compile(r"none|optional|required"),
    "ssl_certfile": re.compile(r"[^\0]+"),
    "ssl_check_hostname": re.compile(r"true|false|yes|no|1|0", re.IGNORECASE),
    "ssl_keyfile": re.compile(r"[^\0]+"),
    "ssl_password": re.compile(r".+", re.DOTALL),
}


def _redis_url(text: str) -> str:
    match = _URL.fullmatch(text)
    if match is None or not _VISIBLE_ASCII.fullmatch(text):
        raise ValueError
    scheme, hosts, path, query = match["scheme"].lower(), match["hosts"], match["path"] or "", match["query"]
    if scheme in {"redis", "rediss"}:
        _check_redis_host(hosts, port_required=False)
        if not _DATABASE_PATH.fullmatch(path):
            raise ValueError
        _check_options(query, _URL_OPTIONS | _TLS_OPTIONS if scheme == "rediss" else _URL_OPTIONS)
    elif scheme == "unix":
        if hosts or not path.strip("/") or "\0" in unquote(path):
            raise ValueError
        _check_options(query, _URL_OPTIONS)
    elif scheme == "redis+sentinel":
        for host in hosts.split(","):
            _check_redis_host(host, port_required=True)
        if not _SENTINEL_PATH.fullmatch(path) or query is not None:
            raise ValueError
    else:
        raise ValueError
    # The clients take it apart with urllib, whose rules grow stricter with Python's releases.
    urlsplit(text)
    # redis-py knows its schemes in lower case only.
    return scheme + text[match.end("scheme") :]


def _redis_addr(text: str) -> str:
    host, port = _host_port(text)
    if port is None or port == 0:
        raise ValueError
    # Go dials ":6379" on this machine, and its Redis clients document that spelling.
    host = host or "localhost"
    _check_host(host)
    return f"redis://{host}:{port}"


def _check_redis_host(text: str, *, port_required: bool) -> None:
    host, port = _host_port(text)
    if port == 0 or (port is None and port_required):
        raise ValueError
    _check_host(host)


def _check_options(query: str | None, known: Mapping[str, re.Pattern[str]]) -> None:
    if query is None:
        return
    for name, value in parse_qsl(query, keep_blank_values=True, strict_parsing=True):
        if name not in known:
            raise _Expected(f"after the ? no option but {', '.join(known)}")
        if not known[name].fullmatch(value):
            raise _Expected(f"after the ? a proper value for {name}")


_SECRET_OPTION = re.compile(r"([?&][^=&#]*pass[^=&#]*=)[^&#]*", re.IGNORECASE)
_NO_CREDENTIALS = re.compile(r"(\[[^\]]*\]|[^:/?#,]*)(:[0-9]{0,5})?(,(\[[^\]]*\]|[^:/?#,]*)(:[0-9]{0,5})?)*")


def masked(url: str) -> str:
    """Hide what may be a password, also in text that is not quite a URL; anything else stays as it is.

    Cautious rather than pretty: the last ``@`` ends the password, a user name alone may be a token,
    and what stands where a port should be may be a password whose host was forgotten.
    """
    url = _SECRET_OPTION.sub(r"\1***", url)
    scheme, rest = _after_scheme(url)
    credentials, at, after = rest.rpartition("@")
    if at:
        user, colon, _ = credentials.partition(":")
        return f"{scheme}{user}:***@{after}" if colon else f"{scheme}***@{after}"
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if scheme and not _NO_CREDENTIALS.fullmatch(authority):
        return f"{scheme}{rest.partition(':')[0]}:***"
    return url


def _after_scheme(url: str) -> tuple[str, str]:
    scheme, separator, rest = url.partition("://")
    return (scheme + separator, rest) if separator else ("", url)


# Origins.

_ORIGIN = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#@]+)")
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def normal_origin(text: str) -> str:
    """Write an origin as browsers do: lower case, without the scheme's own port.

    Raises:
        ValueError: it is not ``scheme://host[:port]``.
    """
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise ValueError("expected scheme://host[:port]")
    scheme = match["scheme"].lower()
    host, port = _host_port(match["authority"].lower())
    if port == 0:
        raise ValueError("expected a port from 1 to 65535")
    _check_host(host)
    if host.startswith("["):
        host = f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
    return f"{scheme}://{host}" if port in {None, _DEFAULT_PORTS.get(scheme)} else f"{scheme}://{host}:{port}"


def _origins(text: str) -> tuple[str, ...]:
    parts = [part.strip() for part in text.split(",")]
    # Each is checked, also beside a "*" that makes it needless: a typo is better seen now than later.
    origins = dict.fromkeys(part if part == "*" else normal_origin(part) for part in parts)
    return ("*",) if "*" in origins else tuple(origins)
