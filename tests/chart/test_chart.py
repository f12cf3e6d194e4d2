"""What the chart renders is valid, consistent, and accepted by the programs that it starts."""

import asyncio
import json
import runpy
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import redis.asyncio
import yaml

from ditochat import __version__
from ditochat.settings import DESCRIPTIONS, load
from tests.conftest import StartInstances
from tests.harness.helm import CHART, HELM, needs_helm, template
from tests.harness.ports import free_port
from tests.harness.redis_server import bundled_valkey
from tests.harness.waiting import eventually

pytestmark = needs_helm

OWN = {"ADDR", "REDIS_URL", "REDIS_ADDR", "DATA_DIR"}  # fixed port; by Secret; the same; never embedded
RARE = {"REDIS_WAIT_REPLICAS"}  # only where it is not 0
CUSTOM = {"BackendConfig", "FrontendConfig", "ManagedCertificate", "ServiceMonitor"}
MANAGED = "valkey.enabled=false,redis.url=rediss://:secret@redis.example:6380/0"
CASES = {
    "default": "",
    "managed": MANAGED,
    "secret": "valkey.enabled=false,redis.existingSecret=given,redis.existingSecretKey=k",
    "sentinel": r"valkey.enabled=false,redis.url=redis+sentinel://a:26379\,b:26379/0/main,redis.waitReplicas=2",
    "nginx": "host=chat.example,ingress.enabled=true,service.type=ClusterIP",
    "gke": "host=chat.example,ingress.enabled=true,ingress.controller=gke,"
    "ingress.gke.managedCertificate=true,ingress.gke.redirectToHttps=true",
    "autoscaling": "autoscaling.enabled=true,autoscaling.targetConnections=5000,serviceMonitor.enabled=true",
    "long drain": "settings.drainSeconds=90,preStopSeconds=20",
    "everything": "host=chat.example,fullnameOverride=chat,ingress.enabled=true,ingress.tls[0].secretName=tls,"
    "ingress.tls[0].hosts[0]=chat.example,autoscaling.enabled=true,autoscaling.targetConnections=5000,"
    "serviceMonitor.enabled=true,extraEnv[0].name=TZ,extraEnv[0].value=UTC,podLabels.team=chat,"
    "networkPolicy.ingressFrom[0].podSelector.matchLabels.app=front,valkey.auth.existingSecret=given,"
    "imagePullSecrets[0].name=given,priorityClassName=high,nodeSelector.disk=ssd,image.digest=sha256:"
    + 64
    * "0",
}
Manifest = dict[str, Any]


def helm(values: str) -> subprocess.CompletedProcess[str]:
    return template("--set", values)


@cache
def rendered(values: str) -> list[Manifest]:
    result = helm(values)
    assert result.returncode == 0, result.stderr
    return [one for one in yaml.safe_load_all(result.stdout) if one]


def only(values: str, kind: str, name: str = "") -> Manifest:
    """The server's one of this kind; `name` is what follows the server's."""
    named = ("chat" if "fullnameOverride=chat" in values else "ditochatbackend") + name
    (one,) = [m for m in rendered(values) if (m["kind"], m["metadata"]["name"]) == (kind, named)]
    return one


def pod_labels(values: str) -> list[dict[str, str]]:
    return [
        m["spec"]["template"]["metadata"]["labels"]
        for m in rendered(values)
        if m["kind"] in {"Deployment", "StatefulSet"}
    ]


def named(manifest: object, key: str) -> Iterator[Any]:
    """What stands under that key, anywhere in the manifest."""
    if isinstance(manifest, dict):
        for name, value in manifest.items():
            if name == key:
                yield value
            yield from named(value, key)
    elif isinstance(manifest, list):
        for value in manifest:
            yield from named(value, key)


def pods(values: str) -> list[Manifest]:
    return [
        m["spec"] if m["kind"] == "Pod" else m["spec"]["template"]["spec"]
        for m in rendered(values)
        if m["kind"] in {"Pod", "Deployment", "StatefulSet"}
    ]


def test_lint_and_versions() -> None:
    subprocess.run([HELM, "lint", "--strict", str(CHART)], check=True, capture_output=True)
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
@pytest.mark.parametrize("version", ["1.25", "1.31", "1.37"])
def test_manifests_fit_kubernetes_schemas(values: str, version: str) -> None:
    for manifest in rendered(values):
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_pods_are_restricted(values: str) -> None:
    for pod in pods(values):
        (container,) = pod["containers"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"]
        assert not container["image"].endswith(":latest")


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_the_server_accepts_its_settings_and_has_time_to_drain(values: str) -> None:
    data = only(values, "ConfigMap")["data"]
    assert data.keys() | OWN | RARE == {one.name for one in DESCRIPTIONS}
    pod = only(values, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    url = {one["name"]: one for one in container["env"]}["REDIS_URL"].get("value")
    if url is None:
        secrets = [m for m in rendered(values) if m["kind"] == "Secret"]
        url = secrets[0]["stringData"]["url"] if secrets else "redis://given"
    settings = load({**data, "REDIS_URL": url.replace("$(VALKEY_PASSWORD)", "x")}, {})
    assert settings.redis_wait_replicas == (2 if "redis.waitReplicas=2" in values else 0)
    assert ("REDIS_WAIT_REPLICAS" in data) == (settings.redis_wait_replicas > 0)
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pause + settings.drain_seconds + 6


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_each_selector_selects_one_kind_of_pods(values: str) -> None:
    labels = pod_labels(values)
    selectors = [
        m["spec"]["selector"] if m["kind"] == "Service" else m["spec"]["selector"]["matchLabels"]
        for m in rendered(values)
        if m["kind"] in {"Service", "Deployment", "StatefulSet", "PodDisruptionBudget"}
    ] + [m["spec"]["podSelector"]["matchLabels"] for m in rendered(values) if m["kind"] == "NetworkPolicy"]
    assert len(selectors) >= 4
    for selector in selectors:
        assert len([one for one in labels if selector.items() <= one.items()]) == 1, selector


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_what_is_referred_to_is_there(values: str) -> None:
    there = {(m["kind"], m["metadata"]["name"]) for m in rendered(values)}
    given = {("Secret", "given")}
    for manifest in rendered(values):
        secrets = [*named(manifest, "secretKeyRef"), *named(manifest, "secretRef")]
        maps = [*named(manifest, "configMapRef"), *named(manifest, "configMap")]
        wanted = {("Secret", one["name"]) for one in secrets} | {("ConfigMap", one["name"]) for one in maps}
        wanted |= {("ServiceAccount", name) for name in named(manifest, "serviceAccountName")}
        wanted |= {(one["kind"], one["name"]) for one in named(manifest, "scaleTargetRef")}
        wanted |= {("Service", one["name"]) for one in named(manifest, "service") if isinstance(one, dict)}
        wanted |= {("Service", name) for name in named(manifest, "serviceName")}
        assert wanted <= there | given | {("ServiceAccount", "default")}
    secrets_read = [one for m in rendered(values) for one in named(m, "secretKeyRef")]
    for secret in [m for m in rendered(values) if m["kind"] == "Secret"]:
        keys = {one["key"] for one in secrets_read if one["name"] == secret["metadata"]["name"]}
        assert keys == set(secret.get("stringData") or secret["data"])


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_each_probe_is_there_and_asks_for_its_own(values: str) -> None:
    (container,) = only(values, "Deployment")["spec"]["template"]["spec"]["containers"]
    paths = {
        name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")
    }
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    (port,) = container["ports"]
    assert (port["name"], port["containerPort"]) == ("http", 8080)
    (service_port,) = only(values, "Service")["spec"]["ports"]
    assert (service_port["name"], service_port["targetPort"]) == ("http", "http")
    for manifest in rendered(values):
        if manifest["kind"] == "StatefulSet":
            (valkey,) = manifest["spec"]["template"]["spec"]["containers"]
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= valkey.keys()


def test_an_own_kind_of_google_is_linked_and_has_the_shape_of_its_version() -> None:
    values = CASES["gke"]
    annotations = only(values, "Service")["metadata"]["annotations"]
    assert json.loads(annotations["cloud.google.com/backend-config"]) == {"default": "ditochatbackend"}
    assert json.loads(annotations["cloud.google.com/neg"]) == {"ingress": True}
    backend = only(values, "BackendConfig")
    assert backend["apiVersion"] == "cloud.google.com/v1"
    assert backend["spec"]["timeoutSec"] > 3600
    assert (backend["spec"]["healthCheck"]["requestPath"], backend["spec"]["healthCheck"]["port"]) == (
        "/readyz",
        8080,
    )
    assert backend["spec"].keys() == {"timeoutSec", "connectionDraining", "sessionAffinity", "healthCheck"}
    ingress = only(values, "Ingress")["metadata"]["annotations"]
    frontend, certificate = only(values, "FrontendConfig"), only(values, "ManagedCertificate")
    assert ingress["networking.gke.io/v1beta1.FrontendConfig"] == frontend["metadata"]["name"]
    assert ingress["networking.gke.io/managed-certificates"] == certificate["metadata"]["name"]
    assert (frontend["apiVersion"], frontend["spec"]) == (
        "networking.gke.io/v1beta1", {"redirectToHttps": {"enabled": True}},
    )  # fmt: skip
    assert (certificate["apiVersion"], certificate["spec"]) == (
        "networking.gke.io/v1", {"domains": ["chat.example"]},
    )  # fmt: skip


def test_prometheus_is_shown_the_metrics_of_the_server_alone() -> None:
    values = CASES["everything"]
    monitor = only(values, "ServiceMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    selected = [
        m["metadata"]["name"]
        for m in rendered(values)
        if m["kind"] == "Service"
        and monitor["spec"]["selector"]["matchLabels"].items() <= m["metadata"]["labels"].items()
    ]
    assert selected == ["chat"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")


def test_the_same_values_render_the_same() -> None:
    values = f"{CASES['everything']},valkey.auth.password="
    assert helm(values).stdout == helm(values).stdout


@pytest.mark.parametrize(
    "values",
    [
        "replicas=3", "settings.historyLimits=5", "settings.historyLimit=0", "settings.historyLimit=many",
        "settings.logLevel=loud", "settings.sendBufferBytes=65536,settings.maxMessageBytes=65537",
        "image.tag=latest", "valkey.enabled=false", "redis.url=redis://a", "valkey.auth.password=a@b",
        "redis.waitReplicas=1", f"{MANAGED},redis.waitReplicas=11", f"{MANAGED},redis.waitReplicas=-1",
        "service.type=Loadbalancer", "autoscaling.enabled=true,autoscaling.maxReplicas=1",
    ],
)  # fmt: skip
def test_wrong_values_are_refused(values: str) -> None:
    assert helm(values).returncode != 0


async def test_the_helm_test_tells_a_working_server_from_none(instances: StartInstances) -> None:
    (container,) = only("", "Pod", "-test")["spec"]["containers"]
    (instance,) = await instances()
    for url, status in ((instance.base_url, 0), (f"http://127.0.0.1:{free_port()}", 1)):
        script = subprocess.run(  # noqa: ASYNC221  # the server is another process
            [sys.executable, *container["command"][1:]], env={"BACKEND_URL": url},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert script.returncode == status, script.stderr


def test_the_readme_has_the_values_as_they_are() -> None:
    written = (CHART / "README.md").read_text()
    program = runpy.run_path(str(CHART / "reference.py"))
    assert written.endswith(program["MARK"] + "\n" + program["table"]())


async def test_valkey_takes_its_configuration(tmp_path: Path) -> None:
    text: str = only("", "ConfigMap", "-valkey")["data"]["valkey.conf"]
    port = free_port()
    (tmp_path / "auth.conf").write_text("requirepass x1\n")
    text = text.replace("/data", str(tmp_path)).replace("/run/valkey", str(tmp_path))
    (tmp_path / "valkey.conf").write_text(text.replace("port 6379", f"port {port}"))
    valkey = await asyncio.create_subprocess_exec(
        bundled_valkey(), tmp_path / "valkey.conf", stdout=asyncio.subprocess.DEVNULL, env={"LC_ALL": "C"}
    )
    try:
        async with redis.asyncio.Redis(port=port, password="x1") as client:  # noqa: S106  # the example's

            async def answers() -> bool:
                try:
                    return bool(await client.ping())
                except redis.ConnectionError:
                    return False

            await eventually(answers, otherwise=lambda: "Valkey does not answer")
            assert (await client.config_get("appendfsync"))["appendfsync"] == "always"
            assert (await client.config_get("appendonly"))["appendonly"] == "yes"
        async with redis.asyncio.Redis(port=port) as stranger:
            with pytest.raises(redis.AuthenticationError):
                await stranger.ping()
    finally:
        valkey.terminate()
        await valkey.wait()
