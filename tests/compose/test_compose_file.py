"""compose.yaml: what it names is there, and its settings are ones that the server takes."""

import re
from pathlib import Path
from typing import Any

import yaml

from ditochat.settings import load

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
NGINX = (ROOT / "compose/nginx.conf").read_text()
INSTANCES = {name: service for name, service in SERVICES.items() if service["image"] == "ditochatbackend"}


def seconds(text: str) -> float:
    assert re.fullmatch(r"\d+s", text)
    return float(text[:-1])


def test_nginx_has_the_instances_in_both_pools() -> None:
    for name in INSTANCES:
        assert len(re.findall(rf"server {name}:8080 ", NGINX)) == 2
    assert len(INSTANCES) == 2
    for mount in SERVICES["nginx"]["volumes"]:
        assert (ROOT / mount.partition(":")[0]).exists()


def test_the_server_takes_its_settings_and_has_time_to_drain() -> None:
    for service in INSTANCES.values():
        settings = load({k: v for k, v in service["environment"].items() if "$" not in v}, {})
        assert settings.redis_url == "redis://valkey:6379/0"
        assert seconds(service["stop_grace_period"]) > settings.drain_seconds + 5


def test_nginx_waits_longer_than_a_connection_is_quiet() -> None:
    (read,) = re.findall(r"proxy_read_timeout (\S+);", NGINX)
    (send,) = re.findall(r"proxy_send_timeout (\S+);", NGINX)
    settings = load({}, {})
    # /ws is pinged every 54 s.
    assert min(seconds(read), seconds(send)) > max(54 + 6, settings.ping_interval + settings.ping_timeout)


def test_everything_is_pinned_and_locked_up() -> None:
    for name, service in SERVICES.items():
        if name not in INSTANCES:
            assert re.search(r":\d+\.\d+\.\d+", service["image"]), name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_what_is_depended_on_is_there_and_says_when_it_is_healthy() -> None:
    for service in SERVICES.values():
        for name in service.get("depends_on", {}):
            assert "healthcheck" in SERVICES[name] or name in INSTANCES
    assert "\nHEALTHCHECK " in (ROOT / "Dockerfile").read_text()
