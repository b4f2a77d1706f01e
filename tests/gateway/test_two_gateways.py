"""Two gateways on one store or one state: the second is refused, whoever it is, before it has touched anything."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.store.locks import Locks
from tests.gateway.service import ACCOUNT, Service
from tests.gateway.support import needs_root

pytestmark = needs_root
_AS_ACCOUNT = ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups"]
_PROGRAM = [sys.executable, "-c", "from gateway.service.cli import main; main()"]
_ELSEWHERE = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh"]


def gateway(config: Path, *words: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A program of the gateway that is refused."""
    argv = [*before, *_AS_ACCOUNT, *_PROGRAM, "--config", str(config), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def other(service: Service) -> Path:
    """The configuration of another gateway: its state is its own, and the store is not."""
    path = service.directory / "other.toml"
    path.write_text(service.config.read_text().replace(f"{service.own}/state", f"{service.own}/other"))
    path.chmod(0o644)
    return path


def test_another_state_on_the_same_store(service: Service, other: Path) -> None:
    """What the first has in the making stays: its lock is of a file that the other would not look at."""
    name = ".new-0123"
    with Locks(f"{service.own}/state").holder() as holder:
        assert holder.try_take(Locks.temporary(name))
        making = service.store / "images" / name
        making.touch()
        for words in (["serve"], ["expire"], ["rebuild"]):
            refused = gateway(other, *words)
            whose = f"the gateway of host {socket.gethostname()} with gateway.state {service.own}/state"
            said = rf"udi-gateway: image store {service.store} is in use by {whose} \(process {service.pid}, since .*\)"
            assert refused.returncode == 2
            assert re.fullmatch(rf"{said}\nhint: stop that one first: .*\n", refused.stderr), refused.stderr
            assert making.exists()
        making.unlink()


def test_the_same_state_on_another_host(service: Service) -> None:
    """Which sees the locks of this one, as on NFS, Lustre with `flock`, or GPFS."""
    for words in (["serve"], ["metrics"]):
        refused = gateway(service.config, *words, before=tuple(_ELSEWHERE))
        said = (
            f"udi-gateway: gateway.state {service.own}/state is in use by the gateway of host {socket.gethostname()} "
        )
        assert refused.returncode == 2 and refused.stderr.startswith(said), refused.stderr
    assert gateway(service.config, "metrics").returncode == 0, "the gateway's own commands are not another gateway"


def test_one_that_has_stopped_leaves_them_to_the_next(service: Service, other: Path) -> None:
    service.stop()
    try:
        assert gateway(other, "expire").returncode == 0
        assert gateway(service.config, "expire", before=tuple(_ELSEWHERE)).returncode == 0
        assert f'"host": "elsewhere", "state": "{service.own}/state"' in (service.store / ".gateway").read_text()
    finally:
        service.start()
    assert os.stat(service.store / ".gateway").st_mode & 0o777 == 0o600
