"""The centre's registry on the machine: Debian's docker-registry, on loopback, its images in the state folder.

What is pushed to it (`xcsim push`) is what users of the machine pull, with `udi pull` or by submitting a job.
"""

import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from udiroot.errors import SetupFailed, UpstreamFailed
from xcsim.processes import wait_until

if TYPE_CHECKING:
    from xcsim.machine import Machine

PROGRAM = "/usr/bin/docker-registry"
FOLDER = "/var/lib/centre-registry"
"""The registry's own, as the login node sees it."""
_RECORD = "registry.json"
_START_SECONDS = 20.0
_PUSH_SECONDS = 300


def name(machine: "Machine") -> str:
    """What it is called in references. The port is chosen once, since another machine, or Debian's own service, may
    have any other."""
    record = machine.state / _RECORD
    if not record.exists():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            record.write_text(json.dumps({"port": probe.getsockname()[1]}))
    return f"localhost:{json.loads(record.read_text())['port']}"


def answers(machine: "Machine") -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", _port(machine))) == 0


def start(machine: "Machine") -> None:
    """Start it as the store's account, unless it runs, and wait until it listens. Raises SetupFailed."""
    if answers(machine):
        return
    if not Path(PROGRAM).exists():
        raise SetupFailed(f"{PROGRAM} is missing", "apt-get install docker-registry")
    configuration = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": f"{FOLDER}/data"}},
        "http": {"addr": f"127.0.0.1:{_port(machine)}"},
    }
    machine.path(f"{FOLDER}/config.yml").write_text(json.dumps(configuration))  # JSON is YAML
    log_path = machine.state / "log/registry.log"
    with open(log_path, "ab") as log:
        process = machine.popen_as(
            "udi", [PROGRAM, "serve", f"{FOLDER}/config.yml"], stdout=log.fileno(), stderr=log.fileno()
        )
    listens = wait_until(lambda: process.poll() is not None or answers(machine), _START_SECONDS, 0.02)
    if not listens or process.poll() is not None:
        raise SetupFailed("the registry did not start", f"see {log_path}")


def push(machine: "Machine", archive: Path, reference: str) -> None:
    """Put the image of a docker-archive into the registry, as NAME:TAG. Raises SetupFailed, UpstreamFailed."""
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        raise SetupFailed("skopeo is missing", "apt-get install skopeo")
    words = ["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", f"docker-archive:{archive}"]
    done = subprocess.run(
        [skopeo, *words, f"docker://{name(machine)}/{reference}"], capture_output=True, text=True, timeout=_PUSH_SECONDS
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise UpstreamFailed(f"{archive} was not pushed as {reference}: {' '.join(last)}")


def _port(machine: "Machine") -> int:
    return int(name(machine).rpartition(":")[2])
