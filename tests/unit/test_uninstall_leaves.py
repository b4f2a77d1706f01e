"""What `udi-admin uninstall` leaves on purpose, and that it names each place; figures for Prometheus do not stay."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from admin.left import left_on_purpose
from jobs import metrics
from tests.unit.cray_standins import StandIns
from tests.unit.test_admin_commands import admin
from tests.unit.test_operations_document import places_of_leftovers
from udi.config import SiteConfig, load, parse

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root installs")


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    made = StandIns(tmp_path)
    (tmp_path / "root").mkdir()
    text = made.config_path.read_text()
    made.config_path.write_text(f'{text}[metrics]\ndirectory = "/var/lib/node-exporter"\n')
    return made


def uninstalled(cray: StandIns, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[list[str], str]:
    """What was removed, and what was said of the rest; paths are below `root`."""
    capsys.readouterr()
    assert admin(cray, "uninstall", "--root", str(cray.directory / "root"), *words) == 0
    told = capsys.readouterr()
    root = str(cray.directory / "root")
    return told.out.replace(root, "").splitlines(), told.err.replace(root, "")


@pytest.fixture
def exporter(cray: StandIns) -> Path:
    directory = cray.directory / "root/var/lib/node-exporter"
    directory.mkdir(parents=True)
    return directory


def test_figures_go(cray: StandIns, exporter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prometheus would go on reading them, and its alerts would never end."""
    metrics.start_metrics(load(str(cray.config_path)))
    metrics.started("held")
    site = load(str(cray.config_path))
    metrics.publish(replace_directory(site, exporter))
    assert (exporter / "udi-hooks.prom").read_text().count("udi_job_starts_total") > 4
    for name in ("udi-gateway.prom", "node.prom"):
        (exporter / name).write_text("# HELP udi_gateway_x x\n")
    for name in ("hooks", "gateway"):  # what was killed in the middle of writing
        (exporter / f".new-udi-{name}.prom").write_text("# HE")
    dry, _ = uninstalled(cray, capsys, "--dry-run")
    wanted = ["/.new-udi-hooks.prom", "/udi-hooks.prom", "/.new-udi-gateway.prom", "/udi-gateway.prom"]
    assert dry == [f"would remove /var/lib/node-exporter{name}" for name in wanted]
    assert len(list(exporter.iterdir())) == 5
    done, _ = uninstalled(cray, capsys)
    assert done == [f"removed /var/lib/node-exporter{name}" for name in wanted]
    assert [path.name for path in exporter.iterdir()] == ["node.prom"], "that of others, whatever it has"
    assert uninstalled(cray, capsys)[0] == []


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_what_is_no_file_of_figures_stays(
    cray: StandIns, exporter: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = exporter / "udi-hooks.prom"
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        (exporter / "other").write_text("# HELP udi_x x\n")
        path.symlink_to("other")
    else:
        path.write_text("# HELP node_x x\n")
    done, said = uninstalled(cray, capsys)
    assert done == [] and os.path.lexists(path)
    assert "/var/lib/node-exporter/udi-hooks.prom has no figures of ours" in said


def replace_directory(site: SiteConfig, directory: Path) -> SiteConfig:
    return replace(site, metrics=replace(site.metrics, directory=str(directory)))


def test_what_install_sh_placed_is_named(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    opt = cray.directory / "root/opt/udi"
    for name in ("venv-0.1-abc", "venv-0.2-def", "python-123", "lib", "other"):
        (opt / name).mkdir(parents=True)
    (opt / "venv").symlink_to("venv-0.2-def")
    (opt / "python").symlink_to("python-123")
    (opt / "node").mkdir()
    (opt / "node/udi.zip").write_text("PK")
    _, said = uninstalled(cray, capsys)
    named = re.findall(r"left: (/opt/udi/\S+): \w", said)
    names = ["node/udi.zip", "venv", "venv-0.1-abc", "venv-0.2-def", "python", "python-123", "lib"]
    assert named == [f"/opt/udi/{name}" for name in names]


def test_the_account_is_named_on_its_own_host(cray: StandIns) -> None:
    text = cray.config_path.read_text()
    for account, named in (("nobody", ["account nobody"]), ("65534", ["account nobody"]), ("nowhere", []), ("0", [])):
        site = parse(re.sub(r"account = .*", f'account = "{account}"', text), str(cray.config_path))
        found = [path for path, _ in left_on_purpose(site, str(cray.config_path), "")]
        assert [path for path in found if path.startswith("account ")] == named
        assert not [path for path, _ in left_on_purpose(site, "/x", "/nowhere") if path.startswith("account ")]


@pytest.mark.parametrize("manager", ["slurm", "torque"])
def test_every_place_that_something_is_left_in_is_named(tmp_path: Path, manager: str) -> None:
    """Those of the page's table, each where the configuration has it; figures are removed, and not left."""
    lines = ['machine = "clusters"', f'workload_manager = "{manager}"'][1 if manager == "slurm" else 0 :]
    tables: dict[str, list[str]] = {"store": ['account = "root"']}
    expected = []
    for key in sorted(places_of_leftovers() - {"metrics.directory"}):
        table, _, name = key.partition(".")
        place = key.replace(".", "/") + "/here"
        path = tmp_path / "root" / place
        tables.setdefault(table, []).append(f'{name} = "/{place}"')
        path.mkdir(parents=True)
        other = {"slurm": "clusters", "torque": "slurm"}[manager]
        expected += [] if table == other else [str(path)]
    lines += [line for table, keys in tables.items() for line in (f"[{table}]", *keys)]
    site = parse("\n".join(lines), "/etc/udi/udi.toml")
    named = {path for path, _ in left_on_purpose(site, "/etc/udi/udi.toml", str(tmp_path / "root"))}
    assert len(expected) > 12
    assert [path for path in expected if path not in named and os.path.dirname(path) not in named] == []
