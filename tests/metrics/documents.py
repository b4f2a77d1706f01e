"""The alert file and the board of `docs/metrics`, as their readers find them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

DOCS = Path(__file__).parents[2] / "docs"
ALERTS, BOARD = DOCS / "metrics/alerts.yml", DOCS / "metrics/grafana.json"
_METRIC = re.compile(r"\budi_\w+")


def alert_expressions() -> dict[str, str]:
    """The expression of each alert."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def board_queries() -> dict[str, str]:
    """Each query of the board, by its panel."""
    panels = json.loads(BOARD.read_text())["panels"]
    return {
        f"{panel['title']} {target['refId']}": target["expr"] for panel in panels for target in panel.get("targets", [])
    }


def metrics_in(query: str) -> set[str]:
    """The names of our metrics that a query has."""
    return set(_METRIC.findall(query))
