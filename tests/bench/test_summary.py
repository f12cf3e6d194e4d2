from bench.summary import Outcome, ratio, summarize


def test_a_row_has_the_medians_and_the_spread_of_the_rounds() -> None:
    row = summarize([Outcome({"a": 3.0, "b": 1.0}), Outcome({"a": 1.0, "b": 1.0}), Outcome({"a": 2.0})])
    assert row.fields == {"a": 2.0, "b": 1.0}
    assert row.spread == {"a": (1.0, 3.0), "b": (1.0, 1.0)}
    assert (row.rounds, row.remarks) == (3, [])


def test_a_round_that_failed_is_said_once_and_left_out_of_the_medians() -> None:
    row = summarize(
        [Outcome(failure="not done in 9 s"), Outcome({"a": 4.0}), Outcome(failure="not done in 9 s")]
    )
    assert row.fields == {"a": 4.0}
    assert row.rounds == 1
    assert row.remarks == ["not done in 9 s"]


def test_no_round_at_all_is_a_row_of_remarks() -> None:
    row = summarize([Outcome(failure="did not start")])
    assert (row.fields, row.rounds, row.remarks) == ({}, 0, ["did not start"])


def test_what_a_server_cannot_do_is_said() -> None:
    row = summarize(
        [
            Outcome({"lost_pct": 91.0, "dropped": 0, "disordered": 5, "failed_to_connect": 1}),
            Outcome({"lost_pct": 93.0, "dropped": 7, "disordered": 0, "failed_to_connect": 0}),
        ]
    )
    assert row.remarks == [
        "does not deliver 92.0 % in time",
        "1 clients could not connect",
        "7 clients were dropped",
        "5 deliveries out of order or twice",
    ]


def test_a_disturbed_round_is_said() -> None:
    assert summarize([Outcome({"others_cores": 0.02})]).remarks == []
    assert summarize([Outcome({"others_cores": 0.7})]).remarks == [
        "disturbed: other programs used 0.7 cores meanwhile"
    ]


def test_a_ratio_needs_both_sides() -> None:
    row, base, none = (summarize([Outcome(fields)]) for fields in ({"a": 3.0}, {"a": 4.0}, {"a": 0.0}))
    assert ratio(row, base, "a") == 0.75
    assert ratio(row, none, "a") is None
    assert ratio(row, base, "b") is None
