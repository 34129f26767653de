"""The files of deploy/ say what the code, the Makefile and each other say. `make lint-deploy` reads them with the
programs they are for."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from text_embeddings_inference.settings import PROGRAM, Settings, command_line
from text_embeddings_inference.settings.telemetry import METRICS_PORT

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "text-embeddings-inference"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile*"))
TEMPLATES = {path.name: path.read_text() for path in (CHART / "templates").iterdir()}
OPTIONS = command_line().options
VARIABLES = {option.variable for option in OPTIONS.values()} | {
    variable.name for variable in command_line().variables.values()
}
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def instructions(dockerfile: Path, name: str) -> list[str]:
    """The arguments of all instructions of this name, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", dockerfile.read_text()))
    return re.findall(rf"(?m)^{name} +(.*)$", text)


def test_there_are_images_for_cpus_and_gpus() -> None:
    assert [path.name for path in DOCKERFILES] == ["Dockerfile", "Dockerfile.cuda"]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_image(dockerfile: Path) -> None:
    arguments = dict(argument.split("=", 1) for argument in instructions(dockerfile, "ARG") if "=" in argument)
    images = [base.split()[0].replace("${PYTHON}", arguments["PYTHON"]) for base in instructions(dockerfile, "FROM")]
    assert len(images) == 2
    assert all(PINNED.fullmatch(image) for image in images)
    (environment,) = instructions(dockerfile, "ENV")
    variables = dict(pair.split("=", 1) for pair in environment.split())
    assert {name for name in variables if not name.startswith("NVIDIA_")} - {"PATH"} <= VARIABLES
    assert (variables["HUGGINGFACE_HUB_CACHE"], variables["PORT"]) == ("/data", "80"), "as in the image we stand in for"
    assert json.loads(instructions(dockerfile, "ENTRYPOINT")[0]) == [PROGRAM]
    assert Settings.parse(
        ["--model-id", "m", *json.loads(instructions(dockerfile, "CMD")[0])], {}
    ).telemetry.json_output
    assert instructions(dockerfile, "USER") == ["1000"]
    assert f"EXPOSE 80 {METRICS_PORT}" in dockerfile.read_text()


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_an_image_is_made_of_is_there_and_not_ignored(dockerfile: Path) -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [name for line in instructions(dockerfile, "COPY") if "--from" not in line for name in line.split()[:-1]]
    assert set(copied) == set(sent)
    assert all((ROOT / name).exists() for name in copied)


def test_torch_is_that_of_the_makefile() -> None:
    (pinned,) = re.findall(r"(?m)^TORCH = (torch==[\d.]+)$", (ROOT / "Makefile").read_text())
    assert f"TORCH={pinned}" in instructions(DEPLOY / "Dockerfile.cuda", "ARG")


def test_compose() -> None:
    services = load(DEPLOY / "compose.yaml")["services"]
    assert services["server"]["environment"].keys() <= VARIABLES
    Settings.parse(["--model-id", "m", *services["server"]["command"]], {})
    assert (DEPLOY / services["server"]["build"]["context"] / services["server"]["build"]["dockerfile"]).is_file()
    for name, service in services.items():
        assert name == "server" or PINNED.fullmatch(service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for source in (volume.split(":")[0] for volume in service["volumes"]):
            assert not source.startswith(".") or (DEPLOY / source).exists(), source


def test_prometheus_asks_the_port_of_the_metrics() -> None:
    (job,) = load(DEPLOY / "prometheus.yml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"server:{METRICS_PORT}"]}]


def test_grafana_finds_what_it_is_given() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = load(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    (provider,) = load(provisioning / "dashboards" / "dashboards.yaml")["providers"]
    services = load(DEPLOY / "compose.yaml")["services"]
    assert source["url"] == "http://prometheus:9090"
    assert f"./grafana:{provider['options']['path']}:ro" in services["grafana"]["volumes"]


def test_unit() -> None:
    lines = (DEPLOY / "systemd" / "text-embeddings-inference.service").read_text().splitlines()
    pairs = [word for line in lines if line.startswith("Environment=") for word in line.partition("=")[2].split()]
    assert {pair.partition("=")[0] for pair in pairs} <= VARIABLES
    assert f"ExecStart=/opt/text-embeddings-inference/bin/{PROGRAM}" in lines


def test_chart_and_project_have_one_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert load(CHART / "Chart.yaml")["appVersion"] == version


def test_chart_uses_the_values_there_are() -> None:
    values = load(CHART / "values.yaml")
    used = set(re.findall(r"\.Values\.([\w.]+)", "".join(TEMPLATES.values())))
    for name in used:
        found: Any = values
        for part in name.split("."):
            assert part in found, name
            found = found[part]
    assert {name.split(".")[0] for name in used} == values.keys()
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["properties"].keys() - {"global"} == values.keys()


def test_chart_knows_the_options() -> None:
    deployment = TEMPLATES["deployment.yaml"]
    assert set(re.findall(r"name: ([A-Z_]+)\n", deployment)) <= VARIABLES
    flags = re.search(r"\$flags := list (.*?) -", TEMPLATES["_helpers.tpl"])
    assert flags is not None
    assert set(flags[1].split()) == {f'"{o.flag[2:]}"' for o in OPTIONS.values() if o.value.takes == "nothing"}
    schema = json.loads((CHART / "values.schema.json").read_text())
    names = {option.flag.removeprefix("--") for option in OPTIONS.values()}
    assert set(schema["properties"]["options"]["propertyNames"]["not"]["enum"]) <= names
    for name, value in load(CHART / "values.yaml")["options"].items():
        assert name in names, name
        assert value is True


def test_chart_scales_by_a_metric_there_is() -> None:
    (metric,) = re.findall(r"name: (te_\w+)", TEMPLATES["hpa.yaml"])
    source = (ROOT / "src" / "text_embeddings_inference" / "telemetry" / "metrics.py").read_text()
    assert f'"{metric}"' in source
