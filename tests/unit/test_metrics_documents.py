"""docs/metrics.md has every metric as the code has it, alerts and board name no other, and promtool finds no fault."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.service.counted import families
from gateway.service.metrics import GAUGES
from jobs.metrics import FAMILIES
from tests.metrics.documents import ALERTS, BOARD, DOCS, alert_expressions, board_queries, metrics_in
from tests.metrics.prometheus import TOOL
from udi.metrics import CAUSES, Family
from udi.registries import RegistryConfig

DOCUMENT = (DOCS / "metrics.md").read_text()
OF_THE_GATEWAY = (*GAUGES, *families(RegistryConfig()))
EVERY = (*FAMILIES, *OF_THE_GATEWAY)
_NAME = re.compile(r"udi_[a-z]+(_[a-z]+)*")
_UNITS = ("_seconds", "_bytes")


def row(family: Family) -> str:
    """A metric's row of the table."""
    labels = ", ".join(f"`{name}`" for name in family.labels)
    return f"| `{family.name}` | {family.kind} | {labels} | {family.help} |"


@pytest.mark.parametrize(("title", "expected"), [("Hooks", FAMILIES), ("Gateway", OF_THE_GATEWAY)])
def test_the_tables_are_the_code_s(title: str, expected: tuple[Family, ...]) -> None:
    section = DOCUMENT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `udi_")]
    assert rows == [row(family) for family in expected]


def test_every_value_of_a_label_is_explained() -> None:
    values = {value for family in EVERY for labels in family.series for value in labels}
    hosts = {host.name for host in RegistryConfig().hosts}
    states = {"out_of_service", "in_service", "clean", "dirty"}  # in the words of their rows
    assert {value for value in values - hosts - states if f"`{value}`" not in DOCUMENT} == set()
    assert set(CAUSES.values()) <= values


@pytest.mark.parametrize("family", EVERY, ids=lambda family: family.name)
def test_names_and_helps_are_as_prometheus_wants_them(family: Family) -> None:
    """https://prometheus.io/docs/practices/naming/: base units, `_total` for counters and for nothing else."""
    assert _NAME.fullmatch(family.name)
    assert family.name.endswith("_total") == (family.kind == "counter")
    assert family.kind != "histogram" or family.name.endswith(_UNITS)
    assert list(family.buckets) == sorted(set(family.buckets))
    assert family.help.endswith(".") and '"' not in family.help and "\n" not in family.help
    assert len(family.labels) <= 3
    assert len(set(family.series)) == len(family.series) <= 60


def test_alerts_and_board_name_only_what_there_is() -> None:
    known = {re.split(r"[{ ]", sample)[0] for family in EVERY for sample in family.samples()}
    for where, query in {**alert_expressions(), **board_queries()}.items():
        assert metrics_in(query) <= known, where


def test_the_document_explains_every_alert() -> None:
    section = DOCUMENT.partition("\n## Alerts\n")[2]
    rows = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `Udi")]
    assert rows == list(alert_expressions())


def test_the_board_s_panels_are_distinct_and_ask_the_chosen_data_source() -> None:
    panels = json.loads(BOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    for panel in panels:
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"


@pytest.mark.skipif(not shutil.which(TOOL), reason="promtool is in Debian's package prometheus")
@pytest.mark.parametrize(
    "words",
    [["check", "rules", str(ALERTS)], ["test", "rules", str(Path(__file__).parents[1] / "metrics/alerts.test.yml")]],
)
def test_promtool_finds_no_fault(words: list[str]) -> None:
    done = subprocess.run([TOOL, *words], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which(TOOL), reason="promtool is in Debian's package prometheus")
def test_promtool_finds_no_fault_in_what_hooks_and_gateway_write(tmp_path: Path) -> None:
    """Its linter knows the naming rules, too."""
    from udi.metrics import text_of

    done = subprocess.run(
        [TOOL, "check", "metrics"], input=text_of(EVERY, {}), capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
