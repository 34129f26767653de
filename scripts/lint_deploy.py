"""Reads the files of deploy/ with the programs that will use them, as far as they are here, and GitHub's workflows.

    .venv/deploy/bin/python scripts/lint_deploy.py      (make lint-deploy)

hadolint, Docker Compose, Helm and the schema of workflows come from requirements/deploy.txt; systemd-analyze and
promtool are asked where the machine has them. Nothing is built or started, and no cluster is contacted.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "text-embeddings-inference"
EVERYTHING: dict[str, Any] = {
    "options": {
        "json-output": False,
        "auto-truncate": False,
        "payload-limit": 200_000_000,
        "dtype": "float32",
        "cors-allow-origin": ["https://a.example", "https://b.example"],
    },
    "replicas": 2,
    "autoscaling": {"enabled": True},
    "cache": {"persistent": True, "storageClass": "fast"},
    "serviceMonitor": {"enabled": True},
    "apiKey": {"secretName": "keys"},
    "hfToken": {"secretName": "keys"},
    "podAnnotations": {"a": "b"},
    "nodeSelector": {"a": "b"},
    "extraEnv": [{"name": "LOG_LEVEL", "value": "debug"}],
}
"""Values with which every template writes something."""

ARGUMENTS = [
    "--auto-truncate=false",
    "--cors-allow-origin=https://a.example",
    "--cors-allow-origin=https://b.example",
    "--dtype=float32",
    "--payload-limit=200000000",
]
REFUSED: tuple[dict[str, Any], ...] = ({"options": {"port": 80}}, {"model": {"id": ""}}, {"unknown": 1})


def problems() -> Iterator[str]:
    """One line each."""
    tools = Path(sys.executable).parent
    dockerfiles = sorted(str(path) for path in DEPLOY.glob("Dockerfile*"))
    yield from run(str(tools / "hadolint"), *dockerfiles)
    yield from run(str(tools / "docker-compose"), "--file", str(DEPLOY / "compose.yaml"), "config", "--quiet")
    workflows = sorted(str(path) for path in (ROOT / ".github" / "workflows").iterdir())
    yield from run(str(tools / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *workflows)
    if program := shutil.which("promtool"):
        yield from run(program, "check", "config", str(DEPLOY / "prometheus.yml"))
    if program := shutil.which("systemd-analyze"):
        unit = str(DEPLOY / "systemd" / "text-embeddings-inference.service")
        yield from run(program, "verify", unit, despite="is not executable")  # the server is not installed here
        yield from run(program, "security", "--offline=yes", "--threshold=20", unit)
    yield from chart_problems()


def run(*command: str, despite: str | None = None) -> list[str]:
    """What a program that failed has to say, without lines that say `despite`."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines() if done.returncode else []
    lines = [line for line in lines if despite is None or despite not in line]
    print(f"{Path(command[0]).name} {command[1]}: {'see below' if lines else 'ok'}")
    return lines


def chart_problems() -> Iterator[str]:
    report = helm_python.lint(CHART, strict=True)
    yield from (f"{found['path']}: {found['error']}" for found in report["messages"] if found["severity"] > 1)
    with helm_python.Chart.load(CHART) as chart:
        few = manifests(chart, {})
        if few.keys() != {"deployment", "service"}:
            yield f"without values the chart makes {sorted(few)}"
        found = manifests(chart, EVERYTHING)
        written = {path.stem for path in (CHART / "templates").glob("*.yaml")}
        if found.keys() != written:
            yield f"with all values the chart makes {sorted(found)}"
        arguments = found["deployment"]["spec"]["template"]["spec"]["containers"][0]["args"]
        if arguments != ARGUMENTS:
            yield f"options become {arguments}"
        for values in REFUSED:
            try:
                chart.render(values, name="demo")
            except helm_python.HelmError:
                continue
            yield f"{values} is not refused"
    print("helm lint, template: read")


def manifests(chart: Any, values: dict[str, Any]) -> dict[str, Any]:
    """What the chart makes, by the name of its template."""
    rendered = chart.render(values, name="demo", namespace="default")
    loaded = {Path(name).stem: yaml.safe_load(text) for name, text in rendered.items() if name.endswith(".yaml")}
    return {name: manifest for name, manifest in loaded.items() if manifest is not None}


if __name__ == "__main__":
    found = list(problems())
    print("\n".join(found))
    sys.exit(1 if found else 0)
