"""The site on the machine: our own software, installed as an administrator would by the project's own commands.

The packages are those of this very checkout; `udi-admin install` renders hooks, profile snippets, roots.conf and the
NHC stanza and puts them where `udi.toml` says; the gateway runs as the store's account.
"""

import configparser
import importlib
import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import udiroot
from udiroot.errors import NotFound, SetupFailed
from xcsim import registry, shared_root
from xcsim.access import LoginAccess
from xcsim.initramfs import NID_FILE
from xcsim.processes import wait_until

INSTALLED = "/opt/udi/.xcsim-installed"
LIBRARY = "/opt/udi/lib"
CONFIGURATION = "/etc/udi/udi.toml"
SSHD_BUILT = ".cache/sshd/bin"
"""Where `make sshd` puts its programs in a checkout."""
UDI_RUN_BUILT = ".cache/udi-run/udi-run"
"""Where `make udi-run` puts its program in a checkout; an installation has it in `LIBRARY`."""
GATEWAY_SECONDS = 20.0
_SOCKET = "/run/udi-gateway/gateway.sock"

Tables = Mapping[str, Mapping[str, object]]

TABLES: Tables = {
    "store": {"path": "/scratch/udi", "node_path": "/lus/udi", "account": "udi"},
    "gateway": {
        "user_formats": ["directory"],
        "socket": _SOCKET,
        "state": "/var/lib/udi-gateway",
    },
    "node": {"nid_file": NID_FILE, "filesystems": [{"source": "/scratch"}, {"source": "/home"}]},
    "volumes": {"allowed": ["/scratch", "/home"]},
    "alps": {"reservation_wait": 5},
}
"""What the site of an xcsim machine sets, besides its registry; all else is the project's default."""


def configure(machine: LoginAccess, changes: Tables) -> None:
    """Write `udi.toml`: the machine's own settings with these changes. Hooks read it again at each run."""
    own = registry.name(machine)  # and no other, so nothing is ever requested from the outside world
    base: Tables = {**TABLES, "registry": {"default": own, "hosts": [{"name": own, "plain_http": True}]}}
    tables = {name: {**base.get(name, {}), **changes.get(name, {})} for name in ({**base, **changes})}
    lines = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {toml_value(value)}" for key, value in table.items()), ""]
    path = machine.path(CONFIGURATION)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    path.chmod(0o644)


def toml_value(value: object) -> str:
    """A TOML value on one line. JSON writes strings, numbers and booleans as TOML does."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(one) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def install(machine: LoginAccess, changes: Tables) -> None:
    """Packages, configuration, `udi-admin install`, registry, gateway. Parts that are already there are kept."""
    if not machine.path(INSTALLED).exists():
        _install_software(machine, changes)
        machine.path(INSTALLED).touch()
    registry.start(machine)
    if not accepts(machine.path(_SOCKET)):
        start_gateway(machine)


def _install_software(machine: LoginAccess, changes: Tables) -> None:
    root = machine.path("/")
    put_packages(root)
    configure(machine, changes)
    admin = "import sys; from admin.cli import main; sys.exit(main())"
    words = ["--config", CONFIGURATION, "install", "--root", "/"]
    done = machine.run_as("root", [shared_root.python_inside(), "-I", "-c", admin, *words])
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise SetupFailed(f"the site's software was not installed: {last}")


def put_packages(root: Path) -> None:
    """Our packages, from where this process imports them, into the Python that the hooks run with.

    What a development installation left in that Python is removed from the login node's copy of it, so nothing reads
    the checkout, which users of the machine need not be able to see.
    """
    source = checkout()
    if (source / SSHD_BUILT).is_dir():
        shutil.copytree(source / SSHD_BUILT, root / LIBRARY[1:] / "sshd", dirs_exist_ok=True)
    (root / LIBRARY[1:]).mkdir(parents=True, exist_ok=True)
    built = [path for path in (source / UDI_RUN_BUILT, Path(LIBRARY) / "udi-run") if path.is_file()]
    if built:
        shutil.copy(built[0], root / LIBRARY[1:] / "udi-run")
    for name in packages_of(source):
        shared_root.copy_package(importlib.import_module(name).__path__[0], root / LIBRARY[1:])
    purelib = Path(sysconfig.get_paths()["purelib"])
    if sys.prefix != sys.base_prefix:
        venv = root / shared_root.VENV[1:]
        if not venv.exists():  # the machine came up without us
            venv.symlink_to(os.path.relpath(shared_root.OWN_VENV, os.path.dirname(shared_root.VENV)))
        purelib = Path(shared_root.VENV) / purelib.relative_to(sys.prefix)
    packages = root / str(purelib)[1:]
    for left in packages.glob("__editable__*"):
        left.unlink()
    (packages / "shifter-xc.pth").write_text(f"{LIBRARY}\n")


def checkout() -> Path:
    """The directory that our packages are imported from."""
    return Path(udiroot.__path__[0]).parent


def packages_of(checkout: Path) -> list[str]:
    """Our top-level packages but this one: those that setup.cfg lists, or in an installation without it, pip."""
    metadata = configparser.ConfigParser()
    if metadata.read(checkout / "setup.cfg"):
        listed = metadata["options"]["packages"].split()
    else:
        listed = (importlib.metadata.distribution("shifter-xc").read_text("top_level.txt") or "").split()
    return sorted({name.partition(".")[0] for name in listed} - {"xcsim"})


def accepts(path: Path) -> bool:
    """Whether somebody accepts connections on this socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def start_gateway(machine: LoginAccess) -> None:
    """Start the image gateway as the store's account; returns when it accepts connections."""
    owner = shared_root.account("udi")
    if owner is None:
        raise NotFound("no account udi on this machine")
    directory = machine.path("/run/udi-gateway")
    directory.mkdir(mode=0o755, exist_ok=True)
    shared_root.give(directory, owner)
    with open(machine.state / "log/gateway.log", "ab") as log:
        process = machine.popen_as(
            "udi",
            ["/opt/udi/bin/udi-gateway", "--config", CONFIGURATION, "serve"],
            stdin=subprocess.DEVNULL,
            stdout=log.fileno(),
            stderr=log.fileno(),
        )
    there = wait_until(lambda: process.poll() is not None or accepts(machine.path(_SOCKET)), GATEWAY_SECONDS, 0.05)
    if not there or process.poll() is not None:
        raise SetupFailed("the image gateway did not start", f"see {machine.state}/log/gateway.log")
