import pytest

from bench.generator import Target, arguments
from bench.machine import Cores
from bench.peers.external import External
from bench.scenarios import SCENARIOS, quick


def test_an_added_server_is_a_name_a_url_and_a_protocol() -> None:
    server = External.parse("go=http://127.0.0.1:8081,ws,4711")
    assert server == External("go", 8081, None, "ws", 4711)


def test_an_added_server_may_have_a_path_and_no_pid() -> None:
    server = External.parse("x=ws://localhost:9000/realtime?v=1,socketio")
    assert (server.path, server.pid, server.protocol) == ("/realtime?v=1", None, "socketio")


@pytest.mark.parametrize(
    "text",
    [
        "go",
        "go=http://127.0.0.1:8081",
        "go=http://127.0.0.1:8081,grpc",
        "go=http://127.0.0.1,ws",
        "go=http://192.0.2.1:80,ws",
        "=http://127.0.0.1:80,ws",
        "go=http://127.0.0.1:80,ws,pid",
    ],
)
def test_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        External.parse(text)


def test_a_scenario_becomes_the_generators_arguments() -> None:
    scenario = next(one for one in SCENARIOS if one.name == "two-instances")
    target = Target("socketio", [8001, 8002], [11, 12])
    assert " ".join(arguments(scenario, target, clients=1000)) == (
        "fanout --protocol socketio --clients 1000 --publishers 10 --window 1 --rate 100 --warm 1.0 --secs 4 "
        "--drain 2 --port 8001 --port 8002 --pid 11 --pid 12"
    )


def test_quick_is_quick() -> None:
    assert all(one.secs <= 1 and one.clients <= 5000 and one.rounds == 1 for one in map(quick, SCENARIOS))


def test_the_scenarios_have_names_of_their_own() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)


def test_the_pinning_is_said_in_words() -> None:
    assert "core 0" in str(Cores(server=0, load=1, redis=1))
    assert "the load's core" in str(Cores(server=0, load=1, redis=1))
    assert "a third core" in str(Cores(server=0, load=1, redis=2))
    assert "only one core" in str(Cores(server=None, load=None, redis=None))
