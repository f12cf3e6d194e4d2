"""The settings, from text to the frozen object, and every way to get one wrong."""

import contextlib
import traceback
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.asyncio import ConnectionPool
from socketio.redis_manager import parse_redis_sentinel_url

from ditochat.log.connections import connect
from ditochat.settings import DESCRIPTIONS, Address, BadSetting, Settings, load, masked, normal_origin

NAMES = [description.name for description in DESCRIPTIONS]


def setting(field: str, text: str) -> object:
    """The field ``field`` where the variable of its setting is ``text``."""
    variable = "ALLOWED_ORIGIN" if field == "allowed_origins" else field.upper()
    return getattr(load({variable: text}, {}), field)


def refusal(name: str, text: str) -> BadSetting:
    """What is raised where ``name`` is ``text``, given as a flag: there the empty text counts too."""
    with pytest.raises(BadSetting) as caught:
        load({}, {name: text})
    return caught.value


# Defaults and precedence


def test_nothing_given_is_the_documented_defaults() -> None:
    assert load({}, {}) == Settings(
        addr=Address(None, 8080),
        redis_url=None,
        redis_wait_replicas=0,
        data_dir=Path("data"),
        allowed_origins=(),
        history_limit=1000,
        max_message_bytes=4096,
        send_buffer_bytes=1_048_576,
        drain_seconds=10.0,
        ping_interval=25.0,
        ping_timeout=20.0,
        log_level="info",
        log_format="text",
    )


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("ADDR", "127.0.0.1:9000", "addr", Address("127.0.0.1", 9000)),
        ("REDIS_URL", "redis://r:1/2", "redis_url", "redis://r:1/2"),
        ("REDIS_ADDR", "r:6379", "redis_url", "redis://r:6379"),
        ("DATA_DIR", "/var/lib/chat", "data_dir", Path("/var/lib/chat")),
        ("ALLOWED_ORIGIN", "https://a.example", "allowed_origins", ("https://a.example",)),
        ("HISTORY_LIMIT", "5", "history_limit", 5),
        ("MAX_MESSAGE_BYTES", "300", "max_message_bytes", 300),
        ("SEND_BUFFER_BYTES", "70000", "send_buffer_bytes", 70_000),
        ("DRAIN_SECONDS", "0.5", "drain_seconds", 0.5),
        ("PING_INTERVAL", "0.3", "ping_interval", 0.3),
        ("PING_TIMEOUT", "2", "ping_timeout", 2.0),
        ("LOG_LEVEL", "debug", "log_level", "debug"),
        ("LOG_FORMAT", "json", "log_format", "json"),
    ],
)
def test_each_setting_is_read_from_its_variable_and_from_its_flag(
    name: str, text: str, field: str, value: object
) -> None:
    assert getattr(load({name: text}, {}), field) == value
    assert getattr(load({}, {name: text}), field) == value


def test_the_flag_wins_over_the_variable() -> None:
    assert load({"HISTORY_LIMIT": "5"}, {"HISTORY_LIMIT": "6"}).history_limit == 6


def test_the_flag_wins_over_a_bad_variable() -> None:
    assert load({"HISTORY_LIMIT": "abc"}, {"HISTORY_LIMIT": "6"}).history_limit == 6


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_variable_counts_as_not_set(name: str) -> None:
    assert load({name: ""}, {}) == load({}, {})


def test_other_variables_are_none_of_ours() -> None:
    assert load({"PATH": "/bin", "history_limit": "abc"}, {}) == load({}, {})


@pytest.mark.parametrize(
    ("name", "text"),
    [("REDIS_URL", "redis://r"), ("REDIS_ADDR", "r:1"), ("ALLOWED_ORIGIN", "https://a.example")],
)
def test_an_empty_flag_takes_back_a_variable_whose_default_is_nothing(name: str, text: str) -> None:
    assert load({name: text}, {name: ""}) == load({}, {})


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(BadSetting, match="HISTORY_LIMIT"):
        load({}, {"HISTROY_LIMIT": "1"})


def test_settings_are_frozen() -> None:
    settings = load({}, {})
    with pytest.raises(AttributeError):
        settings.history_limit = 5  # type: ignore[misc]


def test_every_setting_is_described_once() -> None:
    assert len(set(NAMES)) == len(NAMES)
    fields = {name.upper() for name in msgspec.structs.asdict(load({}, {}))}
    assert set(NAMES) - fields == {"REDIS_ADDR", "ALLOWED_ORIGIN"}
    assert fields - set(NAMES) == {"ALLOWED_ORIGINS"}


def test_a_description_knows_its_flag_and_shows_its_default() -> None:
    shown = {description.flag: description.shown_default for description in DESCRIPTIONS}
    assert shown["--history-limit"] == "1000"
    assert shown["--redis-url"] == "none"
    assert shown["--allowed-origin"] == "same origin"
    assert all(description.meaning and description.expected for description in DESCRIPTIONS)


# Addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":8080", Address(None, 8080)),
        (":0", Address(None, 0)),
        (":65535", Address(None, 65535)),
        ("localhost:8080", Address("localhost", 8080)),
        ("0.0.0.0:80", Address("0.0.0.0", 80)),  # noqa: S104
        ("chat_1.example.:80", Address("chat_1.example.", 80)),
        ("[::1]:8080", Address("::1", 8080)),
        ("[::]:0", Address("::", 0)),
        ("[fe80::1%eth0]:80", Address("fe80::1%eth0", 80)),
    ],
)
def test_an_address_is_taken_apart_and_written_again(text: str, address: Address) -> None:
    assert load({"ADDR": text}, {}).addr == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "8080", "localhost", "localhost:", ":", ":-1", ":+1", ":65536", ":999999", ":80 ", " :80",
        ": 80", "localhost:http", "::1:8080", "[::1]", "[::1:80", "::1]:80", "[]:80", "[localhost]:80",
        "[127.0.0.1]:80", "[::g]:80", "256.0.0.1:80", "1.2.3:80", "a b:80", "-a:80", "a..b:80", "a/b:80",
        "*:80", "u@h:80",
        "http://localhost:80", f"{'a' * 64}:80", f"{'a.' * 127}a:80", ":٣", "h\n:80", "fe80::1%eth0:80",
        "[fe80::1%]:80", "[fe80::1%a b]:80", "host%eth0:80", "[x%eth0]:80",
    ],
)  # fmt: skip
def test_a_bad_address_is_refused(text: str) -> None:
    assert refusal("ADDR", text).name == "--addr"


HOSTS = st.one_of(
    st.none(),
    st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z][a-z0-9]{0,9}){0,3}", fullmatch=True),
    st.ip_addresses().map(str),
)


@given(HOSTS, st.integers(0, 65535))
def test_any_address_survives_being_written_and_read(host: str | None, port: int) -> None:
    address = Address(host, port)
    assert load({"ADDR": str(address)}, {}).addr == address


# Redis


GOOD_URLS = [
    "redis://localhost",
    "redis://localhost/",
    "redis://localhost:6379/0",
    "redis://:secret@redis:6379/15",
    "redis://user:se%2Fcret@10.0.0.1:6379",
    "redis://[::1]:6379/1",
    "redis://h?db=3",
    "rediss://user:secret@redis.example:6380/0",
    "rediss://h?ssl_cert_reqs=none&ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=false",
    "unix:///run/valkey.sock",
    "unix:///run/valkey.sock?db=1",
    "unix://user:secret@/run/valkey.sock",
]
GOOD_SENTINELS = [
    "redis+sentinel://s1:26379/0/mymaster",
    "redis+sentinel://s1:26379,s2:26380,s3:26381/2/mymaster",
    "redis+sentinel://user:secret@s1:26379,s2:26379/0/mymaster",
]


@pytest.mark.parametrize("url", GOOD_URLS + GOOD_SENTINELS)
def test_a_good_url_is_kept_as_it_is(url: str) -> None:
    assert load({"REDIS_URL": url}, {}).redis_url == url


@pytest.mark.parametrize("url", GOOD_URLS)
def test_redis_py_makes_a_connection_from_a_good_url(url: str) -> None:
    """A wrong option in a URL would otherwise show up when the first connection is made."""
    ConnectionPool.from_url(url).make_connection()


@pytest.mark.parametrize("url", GOOD_SENTINELS)
def test_stock_writers_understand_a_good_sentinel_url(url: str) -> None:
    sentinels, service, _ = parse_redis_sentinel_url(url)
    assert sentinels[0] == ("s1", 26379)
    assert service == "mymaster"


def test_the_scheme_is_lowered() -> None:
    assert load({"REDIS_URL": "Redis://Host:1"}, {}).redis_url == "redis://Host:1"


@pytest.mark.parametrize(
    "url",
    [
        " ", "localhost", "localhost:6379", "redis", "redis:", "redis:/h", "redis://", "redis:///0", "redis://:6379",
        "redis://:secret@", "http://h", "redis+tls://h", "valkey://h", "://h", "//h:6379",
        "redis://h:", "redis://h:0", "redis://h:65536", "redis://h:x", "redis://h:-1", "redis://a b",
        "redis://h ", " redis://h", "redis://h\n", "redis://h/x", "redis://h/-1", "redis://h/0/1", "redis://h#0",
        "redis://::1:6379", "redis://[::1", "redis://[x]", "redis://a,b", "redis://a:1,b:2", "redis://h.%65xample",
        "redis://h?db", "redis://h?db=", "redis://h?db=x", "redis://h?foo=1", "redis://h?ssl_cert_reqs=none",
        "redis://h?socket_timeout=1", "rediss://h?ssl_cert_reqs=maybe", "redis://:pässword@h",
        "unix://", "unix:///", "unix://relative/path", "unix:///a%00b", "unix:///a#b",
        "redis+sentinel://", "redis+sentinel:///0/svc", "redis+sentinel://h:1", "redis+sentinel://h:1/",
        "redis+sentinel://h:1/0", "redis+sentinel://h:1/0/", "redis+sentinel://h:1/svc", "redis+sentinel://h:1//svc",
        "redis+sentinel://h:1/x/svc", "redis+sentinel://h:1/0/svc/more", "redis+sentinel://h/0/svc",
        "redis+sentinel://h:1,/0/svc", "redis+sentinel://,h:1/0/svc", "redis+sentinel://h:1,h2/0/svc",
        "redis+sentinel://h:0/0/svc", "redis+sentinel://:1/0/svc", "redis+sentinel://h:1/0/svc?db=1",
    ],
)  # fmt: skip
def test_a_bad_redis_url_is_refused(url: str) -> None:
    assert refusal("REDIS_URL", url).name == "--redis-url"


def test_an_unknown_option_in_a_url_is_named_with_those_that_are_known() -> None:
    assert "db, password, username" in str(refusal("REDIS_URL", "redis://h?tiemout=1"))


def test_redis_url_wins_over_redis_addr() -> None:
    given_both = {"REDIS_URL": "redis://url:1", "REDIS_ADDR": "addr:2"}
    assert load(given_both, {}).redis_url == "redis://url:1"


def test_redis_url_from_the_environment_wins_over_the_flag_of_redis_addr() -> None:
    assert load({"REDIS_URL": "redis://url:1"}, {"REDIS_ADDR": "addr:2"}).redis_url == "redis://url:1"


@pytest.mark.parametrize(
    ("addr", "url"),
    [
        ("redis:6379", "redis://redis:6379"),
        (":6379", "redis://localhost:6379"),
        ("[::1]:6379", "redis://[::1]:6379"),
    ],
)
def test_redis_addr_becomes_a_url(addr: str, url: str) -> None:
    assert load({"REDIS_ADDR": addr}, {}).redis_url == url


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "redis",
        "redis:",
        "redis:0",
        "redis:65536",
        "redis:x",
        "redis://h:1",
        "a b:1",
        "u:p@h:1",
        "a:1,b:2",
    ],
)
def test_a_bad_redis_addr_is_refused_even_where_redis_url_wins(text: str) -> None:
    assert refusal("REDIS_ADDR", text).name == "--redis-addr"
    with pytest.raises(BadSetting, match="REDIS_ADDR"):
        load({"REDIS_URL": "redis://h", "REDIS_ADDR": text}, {})


TOKENS = st.text("abcXYZ019-._~:@%[]{}é ,+=&", max_size=12)


@given(
    st.sampled_from(["redis", "rediss", "unix", "redis+sentinel"]),
    st.one_of(st.just(""), TOKENS.map(lambda text: text + "@")),
    st.one_of(st.sampled_from(["", "h", "h:1", "[::1]:1", "h:1,[::1]:2", "h:1,g:2"]), TOKENS),
    st.one_of(st.sampled_from(["", "/0", "/0/svc", "/run/x.sock"]), TOKENS.map(lambda text: "/" + text)),
    st.one_of(st.sampled_from(["", "?db=1", "?ssl_cert_reqs=none"]), TOKENS.map(lambda text: "?" + text)),
)
def test_the_log_can_use_every_url_that_is_accepted(
    scheme: str, credentials: str, hosts: str, path: str, query: str
) -> None:
    with contextlib.suppress(BadSetting):
        url = load({"REDIS_URL": f"{scheme}://{credentials}{hosts}{path}{query}"}, {}).redis_url
        assert url is not None
        connect(url)


# Passwords


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://:secret@h:1/0", "redis://:***@h:1/0"),
        ("redis://user:secret@h", "redis://user:***@h"),
        ("redis://secret@h", "redis://***@h"),
        ("redis://user:sec@ret@h", "redis://user:***@h"),
        ("redis://user:sec/ret@h", "redis://user:***@h"),
        ("redis://user:sec://ret@h", "redis://user:***@h"),
        ("redis://user:secret", "redis://user:***"),
        ("redis://user:se/cret", "redis://user:***"),
        ("redis://user:123456", "redis://user:***"),
        ("redis://h?password=secret&db=1", "redis://h?password=***&db=1"),
        ("rediss://h?ssl_password=secret", "rediss://h?ssl_password=***"),
        ("unix://u:secret@/run/s", "unix://u:***@/run/s"),
        ("redis+sentinel://u:secret@a:1,b:2/0/s", "redis+sentinel://u:***@a:1,b:2/0/s"),
        ("redis+sentinel://a:1,[::1]:2/0/s", "redis+sentinel://a:1,[::1]:2/0/s"),
        ("user:secret@h:1", "user:***@h:1"),
        ("redis:/user:secret@h", "redis:***@h"),
        ("localhost:6379", "localhost:6379"),
        ("/just/a/path", "/just/a/path"),
        ("", ""),
    ],
)
def test_a_password_is_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:hunter2@h:x", "redis://u:hunter2@", "redis://u:hun/ter2@h", "redis://u:hunter2",
        "u:hunter2@h", "redis://u:hunter#2@h", "redis://[u:hunter2@h", "redis://h?password=hunter2&x=1",
        "redis:/u:hunter2@h", "REDIS ://u:hunter2@h", "redis+sentinel://u:hunter2@h:1", "redis://u:hunter2@h\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["REDIS_URL", "REDIS_ADDR", "ALLOWED_ORIGIN", "ADDR"])
def test_no_error_repeats_a_password(name: str, url: str) -> None:
    error = refusal(name, url)
    told = f"{error} {error!r} {error.value} {''.join(traceback.format_exception(error))}"
    assert "hun" not in told


def test_the_settings_do_not_show_a_password() -> None:
    settings = load({"REDIS_URL": "redis://user:hunter2@h:1/0"}, {})
    assert "hunter2" not in f"{settings} {settings!r}"
    assert "redis://user:***@h:1/0" in repr(settings)
    assert "history_limit=1000" in repr(settings)


# Origins


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("*", ("*",)),
        ("https://chat.example", ("https://chat.example",)),
        ("HTTPS://Chat.Example:443", ("https://chat.example",)),
        ("http://localhost:80", ("http://localhost",)),
        ("http://localhost:0080", ("http://localhost",)),
        ("http://localhost:443", ("http://localhost:443",)),
        ("http://a.example,https://b.example:8443", ("http://a.example", "https://b.example:8443")),
        (" http://a.example ,\thttp://b.example", ("http://a.example", "http://b.example")),
        ("http://b.example,http://a.example,http://b.example:80", ("http://b.example", "http://a.example")),
        ("http://[::1]:3000", ("http://[::1]:3000",)),
        ("http://[0:0::1]", ("http://[::1]",)),
        ("capacitor://localhost", ("capacitor://localhost",)),
        ("chrome-extension://abcdef", ("chrome-extension://abcdef",)),
        ("https://a.example,*", ("*",)),
    ],
)
def test_origins_are_written_as_browsers_do(text: str, origins: tuple[str, ...]) -> None:
    assert setting("allowed_origins", text) == origins


@pytest.mark.parametrize(
    "text",
    [
        " ", ",", "https://a.example,", ",https://a.example", "a.example", "a.example:80", "null", "https://",
        "https://:80", "https://a.example/", "https://a.example/chat", "https://a.example?x", "https://a.example#x",
        "https://*.example", "https://u@a.example", "https://u:p@a.example", "https://a.example:0", "https://a:65536",
        "https://a.example:", "https://a.example:x", "https://a b", "https://münchen.example", "http://[::1", "http://::1",
        "http://[fe80::1%25eth0]", "http://1.2.3", "file://", "//a.example", "1http://a", "*,nonsense", "**",
        "https://a.example;https://b.example", "https://a.example https://b.example",
    ],
)  # fmt: skip
def test_a_bad_origin_is_refused(text: str) -> None:
    assert refusal("ALLOWED_ORIGIN", text).name == "--allowed-origin"


@given(
    st.sampled_from(["http", "https", "HTTPS", "capacitor"]),
    st.from_regex(r"[a-zA-Z][a-zA-Z0-9-]{0,20}(\.[a-zA-Z][a-zA-Z0-9]{0,9}){0,3}", fullmatch=True),
    st.one_of(st.none(), st.integers(1, 65535)),
)
@example("http", "a.example", 80)
def test_a_normal_origin_is_its_own_normal_form(scheme: str, host: str, port: int | None) -> None:
    normal = normal_origin(f"{scheme}://{host}" if port is None else f"{scheme}://{host}:{port}")
    assert normal == normal.lower()
    assert normal_origin(normal) == normal
    assert setting("allowed_origins", f"{normal}, {normal.upper()}") == (normal,)


# Numbers and words


@pytest.mark.parametrize(
    ("field", "least", "most"),
    [
        ("history_limit", 1, 100_000),
        ("max_message_bytes", 256, 1_048_576),
        ("send_buffer_bytes", 65_536, 1_073_741_824),
    ],
)
def test_an_integer_may_be_anything_within_its_limits(field: str, least: int, most: int) -> None:
    assert setting(field, str(least)) == least
    assert setting(field, str(most)) == most
    assert setting(field, f"00{least}") == least


NO_INTEGER = [
    "", " ", "abc", "-1", "+1000", "1000.0", "1e3", "1_000", " 1000", "1000 ", "1000\n", "0x10", "nan",
    "inf", "\u0661\u0662", "1,000", "9" * 19, "9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("text", [*NO_INTEGER, "0", "100001"])
def test_a_bad_history_limit_is_refused(text: str) -> None:
    assert refusal("HISTORY_LIMIT", text).expected == "an integer from 1 to 100000"


@pytest.mark.parametrize("text", [*NO_INTEGER, "0", "255", "16777217"])
def test_a_bad_largest_message_is_refused(text: str) -> None:
    assert refusal("MAX_MESSAGE_BYTES", text).expected == "an integer from 256 to 16777216"


@pytest.mark.parametrize("text", [*NO_INTEGER, "0", "65535", "1073741825"])
def test_a_bad_send_buffer_is_refused(text: str) -> None:
    assert refusal("SEND_BUFFER_BYTES", text).expected == "an integer from 65536 to 1073741824"


@pytest.mark.parametrize("text", [*NO_INTEGER, "11"])
def test_a_bad_number_of_replicas_is_refused(text: str) -> None:
    assert refusal("REDIS_WAIT_REPLICAS", text).expected == "an integer from 0 to 10"


@pytest.mark.parametrize("redis", [{"REDIS_URL": "redis://r"}, {"REDIS_ADDR": "r:6379"}])
@pytest.mark.parametrize("number", [0, 1, 10])
def test_a_redis_of_ones_own_may_have_replicas(redis: dict[str, str], number: int) -> None:
    text = str(number)
    assert load({**redis, "REDIS_WAIT_REPLICAS": text}, {}).redis_wait_replicas == number
    assert load(redis, {"REDIS_WAIT_REPLICAS": text}).redis_wait_replicas == number


def test_the_embedded_valkey_has_no_replica_to_wait_for() -> None:
    assert setting("redis_wait_replicas", "0") == 0
    expected = "expected 0, because anything above needs REDIS_URL or REDIS_ADDR"
    with pytest.raises(BadSetting) as caught:
        load({"REDIS_WAIT_REPLICAS": "1"}, {})
    assert str(caught.value) == f"REDIS_WAIT_REPLICAS='1': {expected}"
    assert str(refusal("REDIS_WAIT_REPLICAS", "10")) == f"--redis-wait-replicas='10': {expected}"


def test_a_message_may_be_as_large_as_the_send_buffer() -> None:
    settings = load({"MAX_MESSAGE_BYTES": "16777216", "SEND_BUFFER_BYTES": "16777216"}, {})
    assert settings.max_message_bytes == settings.send_buffer_bytes == 16_777_216


@pytest.mark.parametrize(
    ("environment", "flags", "text"),
    [
        (
            {"MAX_MESSAGE_BYTES": "2000000"},
            {},
            "SEND_BUFFER_BYTES='1048576': expected at least MAX_MESSAGE_BYTES, 2000000",
        ),
        (
            {"MAX_MESSAGE_BYTES": "80000"},
            {"SEND_BUFFER_BYTES": "70000"},
            "--send-buffer-bytes='70000': expected at least MAX_MESSAGE_BYTES, 80000",
        ),
    ],
)
def test_a_message_that_no_client_could_be_sent_is_refused(
    environment: dict[str, str], flags: dict[str, str], text: str
) -> None:
    with pytest.raises(BadSetting) as caught:
        load(environment, flags)
    assert str(caught.value) == text


@pytest.mark.parametrize("field", ["drain_seconds", "ping_interval", "ping_timeout"])
@pytest.mark.parametrize(
    ("text", "value"), [("1", 1.0), ("0.25", 0.25), ("0.001", 0.001), ("86400", 86_400.0), ("007.50", 7.5)]
)
def test_seconds_may_have_a_fraction(field: str, text: str, value: float) -> None:
    assert setting(field, text) == value


def test_draining_may_take_no_time() -> None:
    assert setting("drain_seconds", "0") == 0.0


NO_SECONDS = [
    "", " ", "abc", "-1", "-0", "-0.5", "+1", "nan", "NaN", "inf", "-inf", "Infinity", "1e3", "1e999", ".5",
    "5.", "1,5", " 1", "1 ", "1\n", "1_0", "\u0661", "10s", "86400.001", "86401", "9" * 400,
]  # fmt: skip


@pytest.mark.parametrize("text", NO_SECONDS)
def test_bad_drain_seconds_are_refused(text: str) -> None:
    assert refusal("DRAIN_SECONDS", text).expected == "seconds, a decimal number from 0 to 86400"


@pytest.mark.parametrize("name", ["PING_INTERVAL", "PING_TIMEOUT"])
@pytest.mark.parametrize("text", [*NO_SECONDS, "0", "0.0", "0.0009"])
def test_a_bad_heartbeat_is_refused(name: str, text: str) -> None:
    assert refusal(name, text).expected == "seconds, a decimal number from 0.001 to 86400"


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_a_log_level_may_be_written_in_any_case(level: str) -> None:
    assert setting("log_level", level) == setting("log_level", level.upper()) == level


@pytest.mark.parametrize("text", ["", " ", "verbose", "warn", "info ", "10", "critical"])
def test_a_bad_log_level_is_refused(text: str) -> None:
    assert refusal("LOG_LEVEL", text).expected == "one of debug, info, warning, error"


@pytest.mark.parametrize("text", ["", " ", "xml", "json ", "textjson"])
def test_a_bad_log_format_is_refused(text: str) -> None:
    assert setting("log_format", "JSON") == "json"
    assert refusal("LOG_FORMAT", text).expected == "one of text, json"


@pytest.mark.parametrize("text", ["", " ", "a\0b"])
def test_a_bad_data_dir_is_refused(text: str) -> None:
    assert refusal("DATA_DIR", text).expected == "the path of a directory"


# Errors


def test_an_error_names_the_variable_its_value_and_what_is_expected() -> None:
    with pytest.raises(BadSetting) as caught:
        load({"HISTORY_LIMIT": "abc"}, {})
    error = caught.value
    assert (error.name, error.value, error.expected) == (
        "HISTORY_LIMIT",
        "abc",
        "an integer from 1 to 100000",
    )
    assert str(error) == "HISTORY_LIMIT='abc': expected an integer from 1 to 100000"


def test_an_error_names_the_flag_where_that_was_given() -> None:
    assert (
        str(refusal("HISTORY_LIMIT", "abc")) == "--history-limit='abc': expected an integer from 1 to 100000"
    )


def test_an_error_does_not_repeat_a_book() -> None:
    assert len(str(refusal("HISTORY_LIMIT", "x" * 10_000))) < 400


@given(
    st.dictionaries(st.sampled_from(NAMES), st.text()),
    st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text()), st.text()),
)
@example({"REDIS_URL": "redis://[::1]x:1"}, {})
@example({"REDIS_URL": "redis://a[b]:1"}, {})
@example({"REDIS_URL": "redis+sentinel://h:1,[::1]:2/0/s"}, {})
@example({"DATA_DIR": "a\u2028b\udc80\0"}, {})
def test_whatever_is_given_the_answer_is_settings_or_one_line(
    environment: dict[str, str], flags: dict[str, str]
) -> None:
    try:
        load(environment, flags)
    except BadSetting as error:
        assert len(str(error).splitlines()) == 1  # that nothing else is raised is the point


@given(
    st.sampled_from(["ADDR", "REDIS_URL", "REDIS_ADDR", "ALLOWED_ORIGIN"]),
    st.text("aZ09:/[]@.,%?#*= -+\n٣", max_size=30),
    st.sampled_from(["", "redis://", "rediss://", "unix://", "redis+sentinel://", "https://"]),
)
def test_nearly_good_values_raise_nothing_else(name: str, text: str, prefix: str) -> None:
    with contextlib.suppress(BadSetting):
        load({name: prefix + text}, {})
