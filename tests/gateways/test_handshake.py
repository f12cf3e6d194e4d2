"""What a client may say of itself, and what comes of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ditochat.errors import Invalid
from ditochat.gateways.handshake import Handshake, parse_auth


@pytest.mark.parametrize("auth", [None, {}, {"token": "the frontend's own"}, {"after": None, "epoch": None}])
def test_a_new_client_stands_nowhere(auth: object) -> None:
    assert parse_auth(auth) == Handshake(None, None, recovery=False, pid=None)


def test_a_client_says_where_it_stands() -> None:
    assert parse_auth({"after": 7, "epoch": "e"}) == Handshake(7, "e", recovery=False, pid=None)


@pytest.mark.parametrize(
    ("auth", "field"),
    [
        ("text", "auth"),
        ([1], "auth"),
        (5, "auth"),
        ({"after": "7"}, "auth.after"),
        ({"after": -1}, "auth.after"),
        ({"after": 1.5}, "auth.after"),
        ({"after": True}, "auth.after"),
        ({"after": 2**53}, "auth.after"),
        ({"epoch": 5}, "auth.epoch"),
        ({"epoch": "e" * 65}, "auth.epoch"),
        ({"recovery": "yes"}, "auth.recovery"),
        ({"recovery": True, "pid": 5}, "auth.pid"),
        ({"recovery": True, "offset": 5}, "auth.offset"),
        ({"\ud800": 5}, "auth"),
    ],
)
def test_what_breaks_a_rule_is_refused_and_the_field_named(auth: object, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_auth(auth)
    assert refused.value.field == field


def test_a_first_connection_with_recovery_gets_a_pid() -> None:
    handshake = parse_auth({"recovery": True})
    assert handshake == Handshake(None, None, recovery=True, pid=None)
    assert handshake.answer_pid(recovered=None)


def test_an_offset_is_a_position_and_the_pid_is_kept_where_it_can_be_replayed() -> None:
    handshake = parse_auth({"recovery": True, "pid": "p-1", "offset": "0af3:12"})
    assert (handshake.after, handshake.epoch) == (12, "0af3")
    assert handshake.answer_pid(recovered=True) == "p-1"
    assert handshake.answer_pid(recovered=False) != "p-1"


@pytest.mark.parametrize("offset", ["", "hello", "e:", ":1", "e:-1", "e:1:2", "e:99999999999999999", "e:1 "])
def test_an_offset_that_is_none_of_ours_cannot_be_recovered(offset: str) -> None:
    handshake = parse_auth({"recovery": True, "pid": "p", "offset": offset})
    assert (handshake.after, handshake.epoch, handshake.pid) == (0, "", None)


def test_without_recovery_there_is_no_pid() -> None:
    assert parse_auth({"after": 1}).answer_pid(recovered=True) is None


@given(
    st.none()
    | st.text()
    | st.dictionaries(
        st.sampled_from(["after", "epoch", "recovery", "pid", "offset", "x"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70) | st.binary(),
    )
)
def test_no_input_raises_anything_else(auth: object) -> None:
    try:
        parse_auth(auth)
    except Invalid as refused:
        assert refused.field
