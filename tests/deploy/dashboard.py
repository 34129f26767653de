"""The Grafana dashboard, as far as tests look into it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

DASHBOARD = json.loads((Path(__file__).parents[2] / "deploy" / "grafana" / "dashboard.json").read_text())


def expressions(rate_interval: str) -> Iterator[str]:
    """Every PromQL expression, with its variables filled in: all jobs and instances."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            filled: str = target["expr"].replace("$__rate_interval", rate_interval)
            yield filled.replace("$job", ".*").replace("$instance", ".*")
