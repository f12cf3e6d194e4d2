"""The Jenkinsfile: Groovy's own parser takes it, and what it names is there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from ditochat import __version__
from tests.harness.helm import CHART, needs_helm, template

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LINT = HERE / "node_modules/.bin/npm-groovy-lint"
TEXT = (ROOT / "Jenkinsfile").read_text()
STAGES = ["Version", "Test", "Image", "Push", "Chart", "Preview", "Promote"]

needs_java = pytest.mark.skipif(
    shutil.which("java") is None or not LINT.exists(), reason="there is no Java for npm-groovy-lint"
)


def lint(jenkinsfile: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # Without a server, which would stay behind.
        [LINT, "--noserver", "--config", HERE / ".groovylintrc.json", "--failon", "info", jenkinsfile],
        cwd=jenkinsfile.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip


@needs_java
def test_the_linter_finds_nothing() -> None:
    ended = lint(ROOT / "Jenkinsfile")
    assert ended.returncode == 0, ended.stdout


@needs_java
def test_the_linter_refuses_a_broken_one(tmp_path: Path) -> None:
    broken = tmp_path / "Jenkinsfile"
    broken.write_text(TEXT.replace("stage('Push') {", "stage('Push' {"))
    ended = lint(broken)
    assert ended.returncode != 0
    assert "NglParseError" in ended.stdout


def test_the_stages_come_in_order() -> None:
    assert re.findall(r"stage\('(\w+)'\)", TEXT) == STAGES


def test_the_version_is_read_from_the_program() -> None:
    (script,) = re.findall(r"script: '''(.*)'''", TEXT)
    said = subprocess.run(  # noqa: S602 - the line is our own, and what is tested
        script.replace("\\\\", "\\"), shell=True, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == __version__


def test_secrets_come_by_id_and_are_seen_by_the_shell_only() -> None:
    head = TEXT.partition("pipeline {")[0]
    used = set(re.findall(r"credentialsId: '([^']+)'", TEXT))
    assert used == set(re.findall(r"ditochat-\w+", head))
    assert '"$PASSWORD"' in TEXT
    # Between double quotes Groovy would put a secret into the command itself.
    assert not re.search(r'^\s*sh\b\s*\(?\s*"', TEXT, re.MULTILINE)
    assert "set -x" not in TEXT


def test_what_it_names_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {
        word for line in re.findall(r"'make ([^']+)'", TEXT) for word in line.split() if "=" not in word
    }
    assert targets == {"check", "test", "image-test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    arguments = set(re.findall(r"--build-arg (\w+)=", TEXT))
    assert arguments == {"VERSION", "REVISION"}
    assert all(f"ARG {name}=" in (ROOT / "Dockerfile").read_text() for name in arguments)
    assert f"NAME = '{yaml.safe_load((CHART / 'Chart.yaml').read_text())['name']}'" in TEXT
    assert "latest" not in TEXT


@needs_helm
def test_the_chart_takes_the_values_that_it_sets() -> None:
    commands = re.findall(r"helm upgrade.*?(?=helm test)", TEXT, re.DOTALL)
    assert len(commands) == 2
    for command in commands:
        values = re.findall(r"--set (\S+)", re.sub(r'"\$(\w+)"', lambda name: name[1].lower(), command))
        ended = template(*(word for value in values for word in ("--set", value)))
        assert ended.returncode == 0, ended.stderr
        assert "image: image:version" in ended.stdout.replace('"', "")
