"""The same by ssh, to the first of some hosts that answers: the script of docs/gateway.md, and real sshd."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from slurmsim.cluster import LOGIN
from tests.reachable import CHECKOUT
from tests.slurm.cluster import Slurm
from tests.slurm.elsewhere import SECONDS, all_is_gone, begun, restart, started_again, tables, workers
from xcsim.processes import wait_until

pytestmark = pytest.mark.long
_SCRIPT = "/scratch/udi-elsewhere"
_TABLES = tables(_SCRIPT)
_KEYS = "/scratch/udi/.keys"
_LET_IN = f"""
set -e
usermod --shell /bin/sh --password '*' udi
install -d -m 0755 /run/sshd
ssh-keygen -q -t ed25519 -N '' -f /run/host-key
cat > /run/sshd_config <<'END'
HostKey /run/host-key
AuthorizedKeysFile {_KEYS}/id.pub
PidFile /run/sshd-of-test.pid
UsePAM no
PasswordAuthentication no
AllowUsers udi
END
/usr/sbin/sshd -f /run/sshd_config
"""
_LET_OUT = (
    "kill $(cat /run/sshd-of-test.pid); usermod --shell /usr/sbin/nologin --password '!' udi; rm -f /run/host-key*"
)


@pytest.fixture(scope="module")
def elsewhere(standing: Slurm) -> Iterator[Slurm]:
    """The gateway with workers where its script finds a host; nothing answers on the first node."""
    cluster = standing.cluster
    page = (CHECKOUT / "docs/gateway.md").read_text()
    match = re.search(r"^    #!/bin/sh\n(?:    .*\n)*?    exit 255\n", page, re.MULTILINE)
    assert match
    text = "".join(line.removeprefix("    ") for line in match[0].splitlines(keepends=True))
    options = f"-F/dev/null -i{_KEYS}/id -oUserKnownHostsFile={_KEYS}/known"
    script = cluster.directory / _SCRIPT.removeprefix("/")
    script.write_text(
        text.replace("convert1 convert2", "n1 n2").replace("-oBatchMode=yes", f"{options} -oBatchMode=yes")
    )
    script.chmod(0o755)
    cluster.root(LOGIN, "install", "-d", "-o", "udi", "-m", "0700", _KEYS)
    cluster.run_as("udi", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{_KEYS}/id", check=True, cwd="/")
    cluster.root("n2", "/bin/sh", "-c", _LET_IN)
    try:
        key = cluster.root("n2", "cat", "/run/host-key.pub").stdout
        (cluster.directory / _KEYS.removeprefix("/") / "known").write_text(f"n2 {key}")
        with started_again(standing, _TABLES) as slurm:
            yield slurm
    finally:
        cluster.root("n2", "/bin/sh", "-c", _LET_OUT)
        cluster.root(LOGIN, "rm", "-r", _KEYS)


@pytest.fixture
def converting(elsewhere: Slurm, slurm: Slurm) -> Slurm:
    """The cluster for one test."""
    return slurm


def test_an_image_is_made_there(converting: Slurm) -> None:
    with begun(converting, "by-ssh:1") as pull:
        assert workers(converting, "n2") and not workers(converting, "n1")
        (converting.cluster.directory / "scratch/wait").unlink()
        assert pull.wait(SECONDS) == 0
        (converting.cluster.directory / "scratch/wait").touch()
    all_is_gone(converting)


@pytest.mark.parametrize(("host", "words"), [("n2", ("-f", "gateway.service.worker")), (LOGIN, ("ssh",))])
def test_a_worker_that_is_lost_there(converting: Slurm, host: str, words: tuple[str, ...]) -> None:
    """By its own end, and by that of the ssh which connects it."""
    with begun(converting, f"lost-on-{host}:1") as pull:
        converting.cluster.root(host, "pkill", "-KILL", "-u", "udi", *words)
        _, said = pull.communicate(timeout=SECONDS)
    assert pull.returncode == 6 and "the conversion terminated unexpectedly" in said, said
    all_is_gone(converting)
    converting.pull("alice", f"lost-on-{host}:1")


def test_a_gateway_that_is_killed(converting: Slurm) -> None:
    with begun(converting, "killed-by-ssh:1"):
        converting.cluster.root(LOGIN, "pkill", "-KILL", "-u", "udi", "-f", "udi-gateway")
        assert wait_until(lambda: not workers(converting, "n2"), SECONDS, 0.1)
    restart(converting, _TABLES)
    converting.pull("alice", "killed-by-ssh:1")


def test_no_host_answers(converting: Slurm) -> None:
    """The user reads whose error it is, the gateway's log has the script's words, and another try succeeds."""
    cluster = converting.cluster
    cluster.root("n2", "/bin/sh", "-c", "kill $(cat /run/sshd-of-test.pid)")
    done = cluster.run_as("alice", "udi", "pull", "docker-archive:/scratch/begun.tar", cwd="/scratch/alice")
    cluster.root("n2", "/usr/sbin/sshd", "-f", "/run/sshd_config")
    assert done.returncode == 6 and "no host for the conversion: /scratch/udi-elsewhere ended" in done.stderr, (
        done.stderr
    )
    assert "no host for conversions answers" in (cluster.directory / "gateway.log").read_text()
    converting.pull("alice", "again:1")
