"""Which pages may connect."""

import pytest

from ditochat.errors import ForbiddenOrigin
from ditochat.gateways.origins import OriginPolicy

HOST = {"host": "chat.example.com"}


def allowed(policy: OriginPolicy, **headers: str) -> bool:
    try:
        policy.check({name.lower().replace("_", "-"): value for name, value in headers.items()})
    except ForbiddenOrigin:
        return False
    return True


def test_who_sends_no_origin_is_no_page() -> None:
    assert allowed(OriginPolicy([]), Host="chat.example.com")


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://chat.example.com", "chat.example.com", True),
        ("https://chat.example.com", "chat.example.com", True),  # TLS ends in front of us
        ("https://chat.example.com", "chat.example.com:443", True),
        ("http://localhost:8080", "localhost:8080", True),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("http://CHAT.example.com", "chat.example.com", True),
        ("http://localhost:3000", "localhost:8080", False),
        ("http://evil.example.com", "chat.example.com", False),
        ("http://chat.example.com.evil.org", "chat.example.com", False),
        ("null", "chat.example.com", False),
        ("http://", "chat.example.com", False),
        ("http://chat.example.com:notaport", "chat.example.com", False),
        ("", "chat.example.com", False),
    ],
)
def test_by_default_only_the_same_origin_may(origin: str, host: str, same: bool) -> None:
    assert allowed(OriginPolicy([]), Host=host, Origin=origin) is same


def test_the_host_that_a_proxy_forwards_counts_too() -> None:
    forwarded = {"X_Forwarded_Host": "chat.example.com"}
    assert allowed(OriginPolicy([]), Host="10.0.0.7:8080", Origin="https://chat.example.com", **forwarded)


def test_listed_origins_may_and_the_own_page_still() -> None:
    policy = OriginPolicy(["http://app.example.com"])
    assert allowed(policy, Host="chat.example.com", Origin="http://app.example.com")
    assert allowed(policy, Host="chat.example.com", Origin="http://chat.example.com")
    assert not allowed(policy, Host="chat.example.com", Origin="https://app.example.com")


def test_a_star_lets_any_page() -> None:
    assert allowed(OriginPolicy(["*"]), Host="chat.example.com", Origin="null")


def test_an_allowed_page_may_read_the_answer() -> None:
    policy = OriginPolicy(["http://app.example.com"])
    headers = policy.response_headers({**HOST, "origin": "http://app.example.com"})
    assert headers["Access-Control-Allow-Origin"] == "http://app.example.com"
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert headers["Vary"] == "Origin"


def test_another_page_may_not() -> None:
    headers = OriginPolicy([]).response_headers({**HOST, "origin": "http://evil.example.com"})
    assert headers == {"Vary": "Origin"}


def test_a_star_gives_no_credentials_away() -> None:
    headers = OriginPolicy(["*"]).response_headers({**HOST, "origin": "http://any.example.com"})
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in headers


def test_a_preflight_of_another_page_is_refused() -> None:
    with pytest.raises(ForbiddenOrigin, match="evil"):
        OriginPolicy([]).preflight_headers({**HOST, "origin": "http://evil.example.com"}, "GET, POST")
