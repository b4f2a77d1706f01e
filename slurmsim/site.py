"""shifter-xc on a cluster, installed as an operator would: packages on the shared file system, `udi-admin install`, the
lines of slurm.conf that it names, the gateway as the store's account."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from slurmsim.cluster import LIBRARIES, LOGIN, Cluster
from udiroot.errors import SetupFailed
from xcsim import shared_root
from xcsim.processes import wait_until
from xcsim.site import UDI_RUN_BUILT, Tables, accepts, checkout, packages_of, toml_value

PLUGIN_BUILT = ".cache/slurm/udi.so"
"""Where `make spank` puts the plugin in a checkout."""
_LIBRARY, _VENV = "/opt/udi/lib", "/opt/udi/venv"
_CONFIGURATION = "/etc/udi/udi.toml"
_GATEWAY_SECONDS = 20.0
TABLES: Tables = {
    "store": {"path": "/scratch/udi", "account": "udi"},
    "gateway": {"state": "/var/lib/udi-gateway", "pull_at_submission": False, "user_formats": ["directory"]},
    "node": {
        "zip": "/opt/udi/node/udi.zip",
        "python": ["/usr/bin/python3"],
        "deadline": 20,
        "filesystems": [{"source": "/scratch"}, {"source": "/home"}],
    },
    "install": {"python": f"{_VENV}/bin/python", "zip": "/opt/udi/node/udi.zip", "bin": "/opt/udi/bin",
                "udi_run_built": f"{_LIBRARY}/udi-run"},
    "volumes": {"allowed": ["/scratch", "/home"]},
    "jobs": {"syslog": False},
    "slurm": {"plugin_built": f"{_LIBRARY}/slurm-udi.so", "prolog_deadline": 60, "epilog_deadline": 60},
}  # fmt: skip
"""What the site of a cluster sets; all else is the project's default."""


def configure(cluster: Cluster, changes: Tables) -> None:
    """Write `udi.toml`: the cluster's own settings with these changes. Hooks read it again at each run."""
    lines = ['workload_manager = "slurm"', ""]
    for name in {**TABLES, **changes}:
        table = {**TABLES.get(name, {}), **changes.get(name, {})}
        lines += [f"[{name}]", *(f"{key} = {toml_value(value)}" for key, value in table.items()), ""]
    path = cluster.directory / "etc-udi/udi.toml"
    temporary = path.with_suffix(".new")
    temporary.write_text("\n".join(lines))
    temporary.chmod(0o644)
    temporary.rename(path)


def install(cluster: Cluster, changes: Tables, slurm: Mapping[str, str]) -> None:
    """Everything, before Slurm is started; `slurm` are further parameters of slurm.conf. Raises SetupFailed."""
    _put_packages(cluster.directory / "opt")
    configure(cluster, changes)
    cluster.configure({})
    admin = ["-I", "-c", "import sys; from admin.cli import main; sys.exit(main())", "--config", _CONFIGURATION]
    done = cluster.root(LOGIN, f"{_VENV}/bin/python", *admin, "install", check=False)
    if done.returncode:
        raise SetupFailed(f"shifter-xc was not installed: {(done.stderr or done.stdout).strip()}")
    wanted = cluster.root(
        LOGIN, f"{_VENV}/bin/python", "-I", "-c",
        "import json; from slurm_hooks.site_files import slurm_conf; from udi.config import load;"
        f" print(json.dumps(dict(slurm_conf(load('{_CONFIGURATION}')))))",
    )  # fmt: skip
    parameters: dict[str, str] = json.loads(wanted.stdout)
    cluster.configure(parameters | dict(slurm))


def _put_packages(opt: Path) -> None:
    """Our packages, and a virtual environment that has them and the libraries, where every user can read them."""
    source = checkout()
    library = opt / "lib"
    library.mkdir(parents=True, exist_ok=True)
    for name in packages_of(source):
        shared_root.copy_package(str(source / name), library)
    for built, name in ((UDI_RUN_BUILT, "udi-run"), (PLUGIN_BUILT, "slurm-udi.so")):
        if not (source / built).is_file():
            raise SetupFailed(f"{source / built} was not built", "make programs builds it")
        shutil.copy(source / built, library / name)
    packages = opt / f"venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    packages.mkdir(parents=True, exist_ok=True)
    (opt / "venv/bin").mkdir(exist_ok=True)
    (opt / "venv/bin/python").symlink_to("/usr/bin/python3")
    (opt / "venv/pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (packages / "shifter-xc.pth").write_text(f"{_LIBRARY}\n{LIBRARIES}\n")
    (opt / "libraries").mkdir(exist_ok=True)


def start_gateway(cluster: Cluster) -> None:
    """Start the image gateway as the store's account on the login host; returns when it accepts connections."""
    cluster.root(LOGIN, "install", "-d", "-o", "udi", "/run/udi-gateway", "/var/lib/udi-gateway")
    with open(cluster.directory / "gateway.log", "ab") as log:
        process = cluster.popen_as("udi", "/opt/udi/bin/udi-gateway", "serve", cwd="/", stdout=log, stderr=log)
    sock = cluster.login.path("/run/udi-gateway/gateway.sock")
    if not wait_until(lambda: process.poll() is not None or accepts(sock), _GATEWAY_SECONDS, 0.02):
        raise SetupFailed("the image gateway did not start", f"see {cluster.directory}/gateway.log")
    if process.poll() is not None:
        raise SetupFailed("the image gateway ended", f"see {cluster.directory}/gateway.log")
