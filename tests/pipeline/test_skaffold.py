"""skaffold.yaml: it has the shape that Skaffold reads, and what it names is there.

The shapes are those of https://skaffold.dev/docs/references/yaml/ as far as the file uses them;
anything else is refused.
"""

import re
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import yaml

from tests.harness.helm import needs_helm, template

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "skaffold.yaml").read_text()


class Shape(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A mapping without any other key."""


class Metadata(Shape):
    name: str


class Docker(Shape):
    dockerfile: str
    build_args: dict[str, str] = {}


class ManualSync(Shape):
    src: str
    dest: str
    strip: str = ""


class Sync(Shape):
    manual: list[ManualSync]


class Artifact(Shape):
    image: str
    docker: Docker
    sync: Sync | None = None


class Local(Shape):
    push: bool


class Build(Shape):
    artifacts: list[Artifact]
    local: Local | None = None


class Release(Shape):
    name: str
    namespace: str
    create_namespace: bool
    chart_path: str
    set_value_templates: dict[str, str]
    set_values: dict[str, Any] = {}


class Helm(Shape):
    releases: list[Release]


class Deploy(Shape):
    helm: Helm


class Patch(Shape):
    op: Literal["add", "replace", "remove"]
    path: str
    value: Any


class PortForward(Shape):
    resource_type: str
    resource_name: str
    namespace: str
    port: int
    local_port: int


class Profile(Shape):
    name: str
    build: Build
    patches: list[Patch]
    port_forward: list[PortForward]


class Skaffold(Shape):
    api_version: Literal["skaffold/v4beta13"]
    kind: Literal["Config"]
    metadata: Metadata
    build: Build
    deploy: Deploy
    profiles: list[Profile]


def read(text: str) -> Skaffold:
    return msgspec.convert(yaml.safe_load(text), Skaffold)


def render(values: dict[str, Any]) -> str:
    def text(value: object) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    ended = template(*(word for key, value in values.items() for word in ("--set", f"{key}={text(value)}")))
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_mistyped_key_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="chartpath"):
        read(TEXT.replace("chartPath", "chartpath"))


def test_what_it_names_is_there() -> None:
    file = read(TEXT)
    (release,) = file.deploy.helm.releases
    assert (ROOT / release.chart_path / "Chart.yaml").exists()
    for build in (file.build, *(profile.build for profile in file.profiles)):
        for artifact in build.artifacts:
            dockerfile = (ROOT / artifact.docker.dockerfile).read_text()
            assert all(f"ARG {name}=" in dockerfile for name in artifact.docker.build_args)
            name = artifact.image
            assert release.set_value_templates == {
                "image.repository": f"{{{{.IMAGE_REPO_{name}}}}}",
                "image.tag": f"{{{{.IMAGE_TAG_{name}}}}}",
            }


@needs_helm
def test_the_chart_takes_its_values() -> None:
    file = read(TEXT)
    render(dict.fromkeys(file.deploy.helm.releases[0].set_value_templates, "x"))
    (dev,) = file.profiles
    (patch,) = dev.patches
    assert patch.path == "/deploy/helm/releases/0/setValues"
    manifests = [one for one in yaml.safe_load_all(render(patch.value)) if one]
    (deployment,) = [one for one in manifests if one["kind"] == "Deployment"]
    assert deployment["spec"]["replicas"] == 1
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is False
    (forward,) = dev.port_forward
    assert any(
        (one["kind"], one["metadata"]["name"], one["spec"]["ports"][0]["port"])
        == ("Service", forward.resource_name, forward.port)
        for one in manifests
        if one["kind"] == "Service"
    )


def test_pages_are_copied_to_where_the_image_has_them() -> None:
    (artifact,) = read(TEXT).profiles[0].build.artifacts
    assert artifact.sync is not None
    (sync,) = artifact.sync.manual
    assert list(ROOT.glob(sync.src))
    dockerfile = (ROOT / "Dockerfile").read_text()
    python = re.findall(r"^FROM python:(3\.\d+)-\S+$", dockerfile, re.MULTILINE)
    assert sync.dest == f"/opt/ditochat/lib/python{python[-1]}/site-packages/ditochat/demo"
    assert 'force-include]\n"static-demo" = "ditochat/demo"' in (ROOT / "pyproject.toml").read_text()
    # Who may write there is who runs the server.
    (user,) = re.findall(r"^USER (\S+)$", dockerfile, re.MULTILINE)
    assert artifact.docker.build_args == {"OWNER": user}
