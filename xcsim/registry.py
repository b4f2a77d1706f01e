"""The center's registry on the machine: Debian's docker-registry, on loopback, its images in the state directory.

What is pushed to it (`xcsim push`) is what users of the machine pull, with `udi pull` or by submitting a job.
"""

import json
import socket
from pathlib import Path

from udiroot.errors import SetupFailed, UpstreamFailed
from xcsim import tools
from xcsim.access import LoginAccess
from xcsim.ports import free_port
from xcsim.processes import wait_until

PROGRAM = "/usr/bin/docker-registry"
DIRECTORY = "/var/lib/center-registry"
"""The registry's own directory, as the login node sees it."""
_RECORD = "registry.json"
_START_SECONDS = 20.0
_PUSH_SECONDS = 300.0


def name(machine: LoginAccess) -> str:
    """The registry's name in references. The port is chosen once: another machine, or Debian's own service, may have
    taken any fixed one."""
    record = machine.state / _RECORD
    if not record.exists():
        record.write_text(json.dumps({"port": free_port()}))
    return f"localhost:{json.loads(record.read_text())['port']}"


def answers(machine: LoginAccess) -> bool:
    """Whether something accepts connections on the registry's port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", _port(machine))) == 0


def start(machine: LoginAccess) -> None:
    """Start it as the store's account, unless it is running, and wait until it listens. Raises SetupFailed."""
    if answers(machine):
        return
    if not Path(PROGRAM).exists():
        raise SetupFailed(f"{PROGRAM} is missing", "apt-get install docker-registry")
    configuration = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": f"{DIRECTORY}/data"}},
        "http": {"addr": f"127.0.0.1:{_port(machine)}"},
    }
    machine.path(f"{DIRECTORY}/config.yml").write_text(json.dumps(configuration))  # JSON is YAML
    log_path = machine.state / "log/registry.log"
    with open(log_path, "ab") as log:
        process = machine.popen_as(
            "udi", [PROGRAM, "serve", f"{DIRECTORY}/config.yml"], stdout=log.fileno(), stderr=log.fileno()
        )
    listens = wait_until(lambda: process.poll() is not None or answers(machine), _START_SECONDS, 0.02)
    if not listens or process.poll() is not None:
        raise SetupFailed("the registry did not start", f"see {log_path}")


def push(machine: LoginAccess, archive: Path, reference: str) -> None:
    """Copy the image in a docker-archive into the registry, as NAME:TAG. Raises SetupFailed, UpstreamFailed."""
    push_to(name(machine), archive, reference)


def push_to(registry: str, archive: Path, reference: str) -> None:
    """Copy the image in a docker-archive into a registry that speaks plain HTTP. Raises SetupFailed, UpstreamFailed."""
    tools.run(
        "skopeo",
        *("copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"),
        f"docker-archive:{archive}",
        f"docker://{registry}/{reference}",
        failure=f"{archive} was not pushed as {reference}",
        seconds=_PUSH_SECONDS,
        error=UpstreamFailed,
    )


def _port(machine: LoginAccess) -> int:
    return int(name(machine).rpartition(":")[2])
