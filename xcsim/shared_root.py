"""The machine's shared root before any site software is installed: accounts, directories, the stand-ins.

Everything is written from outside through `/proc/<pid>/root`, at the paths of Cray's and Torque's own files
(cray-reference sections 1 to 5), so a hook finds its tools where a site's configuration says.
"""

import compileall
import os
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

import udi
import udiroot
import xcsim

SOFTWARE = "/opt/xcsim"
DAEMON = f"{SOFTWARE}/bin/xcsimd"
VENV = "/opt/udi/venv"
"""Where the login node has the virtual environment of this process, if there is one."""
OWN_VENV = f"{SOFTWARE}/venv"
"""The same on a machine without the site's software, which may come by an installer that wants that place."""
MOM_PRIV = "/var/spool/torque/mom_priv"

STANDINS = {
    "/opt/cray/alps/default/bin": ("apstat", "apbasil", "aprun"),
    "/opt/cray/nodehealth/default/bin": ("xtxqtcmd",),
    "/opt/cray/sdb/default/bin": ("xtprocadmin",),
    "/usr/bin": ("qstat", "qhold", "qrls", "qdel", "apbasil", "aprun"),
}
_DIRECTORIES = (
    f"{MOM_PRIV}/jobs",
    "/var/spool/torque/spool",
    "/var/spool/torque/aux",
    "/var/spool/torque/undelivered",
    "/etc/opt/cray/nodehealth",
    "/etc/opt/cray/cnrte",
    "/etc/udi",
)


@dataclass(frozen=True)
class Account:
    """The account of a person or of a service."""

    name: str
    uid: int
    home: str
    shell: str = "/bin/bash"
    groups: tuple[str, ...] = ()


STATE_DIRECTORIES = ("nodes", "log", "gateway", "registry", "lustre/udi", "lustre/shared", "home")
"""What `lay_out_state` makes; with a few files next to them, all that a machine leaves on the host's disk."""

PROJECT_GROUPS = {"physics": 2001, "climate": 2002}
ACCOUNTS = (
    Account("alice", 1001, "/home/alice", groups=("physics",)),
    Account("bob", 1002, "/home/bob", groups=("climate",)),
    Account("udi", 990, "/var/lib/udi-gateway", "/usr/sbin/nologin"),
)


def account(name: str) -> Account | None:
    """The account of that name, root included."""
    if name == "root":
        return Account("root", 0, "/root")
    return next((known for known in ACCOUNTS if known.name == name), None)


def groups_of(person: Account) -> tuple[int, ...]:
    """All groups of an account, its own first."""
    return (person.uid, *(PROJECT_GROUPS[group] for group in person.groups))


def python_inside(venv: str = VENV) -> str:
    """The interpreter that has our libraries, as the login node sees it."""
    return f"{venv}/bin/python" if sys.prefix != sys.base_prefix else sys.executable


def furnish(root: Path, venv: str = VENV) -> None:
    """Put everything in place; `root` is the shared root as seen from here, `venv` where our virtual environment is."""
    add_accounts(root)
    for directory in _DIRECTORIES:
        (root / directory[1:]).mkdir(parents=True, exist_ok=True)
    (root / MOM_PRIV[1:]).chmod(0o751)
    (root / MOM_PRIV[1:] / "jobs").chmod(0o751)
    (root / "var/spool/torque/spool").chmod(0o1777)
    (root / "var/spool/torque/server_name").write_text("sdb\n")
    (root / "var/spool/torque/torque.cfg").touch()
    (root / "etc/opt/cray/cnrte/roots.conf").write_text("DSL=/dsl\n")
    (root / "etc/opt/cray/nodehealth/nodehealth.conf").write_text("runtests: always\nconnecttime: 60\n")
    (root / "etc/xthostname").write_text("xcsim\n")
    _name_servers(root)
    _path_of_users(root)
    _standins(root, venv)


def add_accounts(root: Path) -> None:
    """Add ACCOUNTS and their groups to the files of a root, in place of the host's with the same names or numbers."""
    people = [f"{who.name}:x:{who.uid}:{who.uid}:{who.name}:{who.home}:{who.shell}" for who in ACCOUNTS]
    groups = [f"{who.name}:x:{who.uid}:" for who in ACCOUNTS]
    for name, gid in PROJECT_GROUPS.items():
        groups.append(f"{name}:x:{gid}:" + ",".join(who.name for who in ACCOUNTS if name in who.groups))
    replace_lines(root / "etc/passwd", people, (0, 2))
    replace_lines(root / "etc/group", groups, (0, 2))
    replace_lines(root / "etc/shadow", [f"{who.name}:!:19000:0:99999:7:::" for who in ACCOUNTS], (0,))


def replace_lines(path: Path, lines: list[str], keys: tuple[int, ...]) -> None:
    """Add lines to a file of accounts, and remove the host's that have the same name or number.

    `keys` are the positions of these fields.
    """
    taken = [{line.split(":")[key] for line in lines} for key in keys]

    def clashes(line: str) -> bool:
        fields = line.split(":")
        return any(fields[key : key + 1] and fields[key] in used for key, used in zip(keys, taken, strict=True))

    kept = [line for line in path.read_text().splitlines() if not clashes(line)]
    path.write_text("\n".join([*kept, *lines]) + "\n")


def _name_servers(root: Path) -> None:
    """Copy the host's resolv.conf where it is a link into /run, which the login node does not share."""
    host, ours = Path("/etc/resolv.conf"), root / "etc/resolv.conf"
    if host.is_symlink() and host.exists():
        text = host.read_text()
        ours.unlink()
        ours.write_text(text)


def _path_of_users(root: Path) -> None:
    profile = root / "etc/profile.d/xcsim-alps.sh"
    profile.parent.mkdir(exist_ok=True)
    profile.write_text('PATH="$PATH:/opt/cray/alps/default/bin:/opt/cray/sdb/default/bin:/opt/udi/bin"\nexport PATH\n')


def _standins(root: Path, venv: str) -> None:
    library = root / SOFTWARE[1:] / "lib"
    for package in (xcsim, udi, udiroot):
        copy_package(package.__path__[0], library)
    client = root / SOFTWARE[1:] / "bin/standin"
    client.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(xcsim.__path__[0]) / "standin.py", client)
    client.chmod(0o755)
    for own in ("fault", "look"):  # the machine's own commands: its faults, and jobs even while qstat has a fault
        _link(f"{SOFTWARE}/bin/standin", root / SOFTWARE[1:] / "bin" / own)
    for directory, names in STANDINS.items():
        (root / directory[1:]).mkdir(parents=True, exist_ok=True)
        for name in names:
            _link(f"{SOFTWARE}/bin/standin", root / directory[1:] / name)
    library_inside, bare = f"{SOFTWARE}/lib", "/usr/bin/python3 -IS"
    program(root, "/usr/bin/qsub", "xcsim.qsub", library=library_inside, python=bare)
    program(root, f"{SOFTWARE}/bin/pbs_mom_starter", "xcsim.starter", library=library_inside, python=bare)
    program(root, DAEMON, "xcsim.service", library=library_inside, python=f"{python_inside(venv)} -I")


def _link(target: str, path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def copy_package(source: str, library: Path) -> None:
    """Copy one Python package, readable by all and compiled, as pip would install it: users cannot write there, so each
    program that they start would compile it anew."""
    target = library / os.path.basename(source)
    shutil.copytree(source, target, dirs_exist_ok=True)
    compileall.compile_dir(target, quiet=2)  # only what has changed since its copy in the checkout was compiled
    for directory, _, names in os.walk(target):
        os.chmod(directory, 0o755)  # noqa: S103
        for name in names:
            os.chmod(f"{directory}/{name}", stat.S_IMODE(os.stat(f"{directory}/{name}").st_mode) | 0o444)


def program(root: Path, path: str, module: str, *, library: str, python: str, function: str = "main") -> None:
    """Write an executable that runs one function of an installed package and uses nothing from the environment."""
    target = root / path[1:]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.write_text(
        f"#!{python}\nimport sys\n\nsys.path.insert(0, {library!r})\nfrom {module} import {function}\n\n"
        f"sys.exit({function}())\n"
    )
    target.chmod(0o755)


def give(path: Path, owner: Account) -> None:
    """Make that account the owner."""
    os.chown(path, owner.uid, owner.uid)


def lay_out_state(state: Path) -> None:
    """Make the directories of the host's disk that serve as Lustre and /home, owned as at a site."""
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    for name in STATE_DIRECTORIES:
        (state / name).mkdir(parents=True, exist_ok=True)
    for name in ("lustre", "lustre/shared", "home"):
        (state / name).chmod(0o755)
    for who in ACCOUNTS:
        for name in ["lustre/udi"] if who.name == "udi" else [f"lustre/{who.name}", f"home/{who.name}"]:
            own = state / name
            own.mkdir(exist_ok=True)
            give(own, who)
            own.chmod(0o755 if who.name == "udi" else 0o750)
    gateway = account("udi")
    assert gateway is not None
    for name in ("gateway", "registry"):
        give(state / name, gateway)
        (state / name).chmod(0o700)
