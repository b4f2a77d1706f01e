"""A gateway's service with a registry, and the directory that its figures go to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gateway.registries import DebianRegistry
from tests.gateway.service import ACCOUNT, Service, directory_for_all, run_as
from tests.metrics.samples import samples

WORKERS = 1


@dataclass
class Watched:
    """A service with a registry, and the directory that its figures go to."""

    service: Service
    registry: DebianRegistry
    directory: Path

    def gateway(self, uid: int, *words: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-c", "from gateway.service.cli import main; main()"]
        return run_as(uid, [*program, "--config", str(self.service.config), *words])

    def figures(self) -> dict[tuple[str, ...], float]:
        """Name and label values → value; labels in the order of their names."""
        done = self.gateway(ACCOUNT, "metrics")
        assert done.returncode == 0, done.stderr
        return samples(done.stdout)


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with directory_for_all("udi-metrics-") as directory:
        for name in ("prom", "spool"):
            (directory / name).mkdir()
            os.chown(directory / name, ACCOUNT, ACCOUNT)
        (directory / "service").mkdir()
        registry = DebianRegistry(directory / "registry")
        tables = (
            f'[metrics]\ndirectory = "{directory}/prom"\n[registry]\ndefault = "{registry.name}"\n'
            f'[[registry.hosts]]\nname = "{registry.name}"\nplain_http = true\n'
        )
        service = Service(directory / "service", f'workers = {WORKERS}\nspool = "{directory}/spool"\n', tables)
        with registry, service:
            yield Watched(service, registry, directory / "prom")
