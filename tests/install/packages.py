"""The RPM packages of `make rpm`: what each has, with which owners and modes, what it requires; and that rpm installs
and removes them below a root."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.install import fresh
from tests.unit.test_links import problem, read

_DIST = fresh.ROOT / "dist"
_NAMES = {
    "shifter-xc": "shifter-xc-python",
    "shifter-xc-python": "",
    "shifter-xc-node": "",
    "shifter-xc-torque-mom": "shifter-xc shifter-xc-node",
    "shifter-xc-login": "shifter-xc",
    "shifter-xc-gateway": "shifter-xc",
    "shifter-xc-slurm": "shifter-xc",
}
_FILES = {
    "shifter-xc-node": {
        "/opt/udi/node/nodehealth-check": "-rwxr-xr-x",
        "/opt/udi/node/ssh/ssh": "-rwxr-xr-x",
        "/opt/udi/node/ssh/sshd": "-rwxr-xr-x",
        "/opt/udi/node/ssh/sshkey": "-rwxr-xr-x",
        "/opt/udi/node/udi.zip": "-rw-r--r--",
    },
    "shifter-xc-torque-mom": {
        "/var/spool/torque/mom_priv/udi-epilogue": "-r-xr-xr-x",
        "/var/spool/torque/mom_priv/udi-prologue": "-r-xr-xr-x",
    },
    "shifter-xc-login": {
        "/etc/profile.d/udi.csh": "-rw-r--r--",
        "/etc/profile.d/udi.sh": "-rw-r--r--",
        "/opt/udi/bin/udi": "-rwxr-xr-x",
        "/opt/udi/bin/udi-submit-filter": "-rwxr-xr-x",
    },
    "shifter-xc-gateway": {
        "/etc/systemd/system/udi-gateway-handle.socket": "-rw-r--r--",
        "/etc/systemd/system/udi-gateway-handle@.service": "-rw-r--r--",
        "/etc/systemd/system/udi-gateway.service": "-rw-r--r--",
        "/etc/xinetd.d/udi-gateway": "-rw-r--r--",
        "/opt/udi/bin/udi-gateway": "-rwxr-xr-x",
        "/opt/udi/share/bash-completion/completions/udi-gateway.bash": "-rw-r--r--",
        "/opt/udi/share/fish/vendor_completions.d/udi-gateway.fish": "-rw-r--r--",
        "/opt/udi/share/man/man8/udi-gateway.8": "-rw-r--r--",
    },
    "shifter-xc-slurm": {"/opt/udi/lib/slurm/udi.so": "-rwxr-xr-x"},
}
_SHARED = ("torque.cfg", "roots.conf", "nodehealth.conf", "plugstack.conf", "mom_priv/prologue", "mom_priv/epilogue")


def query(*words: str | Path) -> list[str]:
    return subprocess.run(["rpm", *words], capture_output=True, text=True, check=True).stdout.splitlines()


def package(name: str) -> Path:
    [found] = _DIST.glob(f"{name}-[0-9]*.rpm")
    return found


def files(name: str) -> dict[str, str]:
    """Path → mode as ls writes it, of what is no directory."""
    rows = query("-qp", "--qf", "[%{FILENAMES}\t%{FILEMODES:perms}\t%{FILEUSERNAME}:%{FILEGROUPNAME}\n]", package(name))
    split = [row.split("\t") for row in rows]
    assert {owner for _, _, owner in split} == {"root:root"}
    return {path: mode for path, mode, _ in split if not mode.startswith("d")}


def test_there_are_no_others() -> None:
    assert {name for path in _DIST.glob("*.rpm") for name in query("-qp", "--qf", "%{NAME}\n", path)} == set(_NAMES)


@pytest.mark.parametrize("name", _FILES)
def test_files_and_modes(name: str) -> None:
    assert files(name) == _FILES[name]


@pytest.mark.parametrize("name", _NAMES)
def test_what_it_requires_and_does_not_own(name: str) -> None:
    """Each other in this very version, and the shell of scriptlets: no library of the build host."""
    needs = [row for row in query("-qp", "--requires", package(name)) if not row.startswith(("rpmlib(", "/bin/sh"))]
    [release] = query("-qp", "--qf", "%{VERSION}-%{RELEASE}\n", package(name))
    assert set(needs) == {f"{other} = {release}" for other in _NAMES[name].split()}
    assert not [path for path in files(name) if path.endswith(_SHARED)]
    assert not [path for path, mode in files(name).items() if mode[0] == "-" and "w" in mode[4:]]


def test_nothing_names_the_machine_that_built_it(tmp_path: Path) -> None:
    root = unpacked(tmp_path, "shifter-xc", "shifter-xc-login", "shifter-xc-gateway", "shifter-xc-torque-mom")
    program = (root / "opt/udi/bin/udi").read_text()
    assert "exec /opt/udi/venv/bin/python -I" in program and "--config /etc/udi/udi.toml" in program
    for directory in ("opt/udi/bin", "opt/udi/venv/bin", "etc", "var"):
        texts = [path for path in (root / directory).rglob("*") if path.is_file() and not path.is_symlink()]
        assert texts and not [path for path in texts if b"/tmp" in path.read_bytes().replace(b"/tmp/udi", b"")]


def test_every_link_of_the_pages_leads_to_a_file_of_the_package(tmp_path: Path) -> None:
    papers = unpacked(tmp_path, "shifter-xc") / "usr/share/doc/shifter-xc"
    pages = list(papers.rglob("*.md"))
    assert {papers / "README.md", papers / "docs/install.md"} <= set(pages)
    assert [wrong for page in pages for link in read(page).links if (wrong := problem(page, link))] == []


def unpacked(directory: Path, *names: str) -> Path:
    """A root with the files of these packages."""
    words = ["rpm", "-i", "--root", str(directory), "--dbpath", "/rpm", "--nodeps", "--noscripts"]
    subprocess.run([*words, *(package(name) for name in names)], check=True)
    return directory


def other_version(work: Path) -> list[Path]:
    """The packages of a version 9.0, with hardly a file, for a Python 3.12."""
    (work / "lists").mkdir(parents=True)
    listed = {"main": "bin/udi-admin", "node": "node/udi.zip", "login": "bin/udi", "gateway": "bin/udi-gateway"}
    listed |= {"slurm": "lib/slurm/udi.so", "torque-mom": "lib/hook"}
    for name, path in listed.items():
        (work / "lists" / name).write_text(f'"/opt/udi/{path}"\n')
    stage = work / "stage"
    trees = {"venv": "venv-9.0-other", "python": "python-other"}
    for path in (*listed.values(), *(f"{tree}/lib/python3.12/one.py" for tree in trees.values())):
        file = stage / "opt/udi" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    for link, tree in trees.items():
        (stage / "opt/udi" / link).symlink_to(tree)
    (stage / "papers").mkdir()
    defined = {
        "_topdir": work / "rpm", "_rpmdir": work / "built", "stage": stage, "lists": work / "lists",
        "project_version": "9.0", "torque": "1", "mom_priv": "/var/spool/torque/mom_priv",
        **{f"{name}_directory": tree for name, tree in trees.items()},
    }  # fmt: skip
    words = [word for name, value in defined.items() for word in ("--define", f"{name} {value}")]
    subprocess.run(["rpmbuild", "-bb", "--quiet", *words, fresh.ROOT / "packaging/shifter-xc.spec"], check=True)
    return sorted((work / "built").rglob("*.rpm"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the old system."""
    subprocess.run(["cp", "-a", "--reflink=auto", fresh.tree(fresh.OLD), tmp_path / "root"], check=True)
    return tmp_path / "root"


def rpm_below(root: Path, *words: str | Path) -> list[str]:
    """What rpm does below a root; Debian's database of packages has no /bin/sh."""
    return query("--root", root, "--dbpath", "/var/lib/rpm", *words)


def compiled_by_hand(root: Path) -> list[Path]:
    """What a Python with another level of optimization leaves beside the files of the packages."""
    subprocess.run(["chroot", root, "/opt/udi/venv/bin/python", "-IO", "-c", "import admin.config_check"], check=True)
    found = list((root / "opt/udi").rglob("*.opt-1.pyc"))
    assert {path.relative_to(root / "opt/udi").parts[0].partition("-")[0] for path in found} == {"venv", "python"}
    return found


def left(root: Path) -> list[str]:
    """What is below /opt."""
    return sorted(str(path.relative_to(root / "opt")) for path in (root / "opt").rglob("*"))


def test_another_version_leaves_nothing_of_the_one_before(root: Path, tmp_path: Path) -> None:
    """Nor does the removal of the last one."""
    rpm_below(root, "-i", "--nodeps", *map(package, _NAMES))
    compiled_by_hand(root)
    rpm_below(root, "-U", "--nodeps", *other_version(tmp_path / "other"))
    assert [path for path in left(root) if "python3.12" in path]
    assert [path for path in left(root) if "python3.11" in path or "-0." in path or "pycache" in path] == []

    rpm_below(root, "-U", "--nodeps", "--oldpackage", *map(package, _NAMES))
    assert [path for path in left(root) if "9.0" in path or "python-other" in path] == []
    rpm_below(root, "-i", "--nodeps", "--replacepkgs", *map(package, _NAMES))
    subprocess.run(["chroot", root, "/opt/udi/bin/udi-admin", "--version"], check=True)
    compiled_by_hand(root)
    rpm_below(root, "-e", "--nodeps", *_NAMES)
    assert left(root) == []


def test_rpm_installs_and_removes_them_on_a_fresh_system(root: Path) -> None:
    """By `rpm --root`. What `udi-admin install` adds comes on top; a removal takes our hooks, and leaves a hook of the
    site's own."""
    rpm = ["rpm", "--root", str(root), "--dbpath", "/var/lib/rpm"]
    paths = [str(package(name)) for name in _NAMES]
    alone = subprocess.run([*rpm, "-i", str(package("shifter-xc-login"))], capture_output=True, text=True)
    assert alone.returncode and "shifter-xc = " in alone.stderr
    subprocess.run([*rpm, "-i", "--nodeps", *paths], check=True)  # Debian's database of packages has no /bin/sh
    assert sorted(query(*rpm[1:], "-qa", "--qf", "%{NAME}\n")) == sorted(_NAMES)
    assert query(*rpm[1:], "-Va", "--nodeps") == []

    mom = root / "var/spool/torque/mom_priv"
    (mom / "epilogue").write_text("#!/bin/sh\nexit 0\n")
    (mom / "epilogue").chmod(0o555)
    for directory in ("etc/udi", "etc/opt/cray/cnrte", "etc/opt/cray/nodehealth"):
        (root / directory).mkdir(parents=True)
    (root / "etc/udi/udi.toml").write_text(
        '[store]\npath = "/srv/udi"\n[install]\npython = "/opt/udi/python/bin/python3"\n'
    )
    done = subprocess.run(["chroot", root, "/opt/udi/bin/udi-admin", "install"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "/opt/udi/bin/udi\n" not in done.stdout and "torque.cfg" in done.stdout
    assert "mom_priv/udi-epilogue" in done.stderr
    assert (mom / "prologue").exists()

    subprocess.run([*rpm, "-e", "--nodeps", *_NAMES], check=True)
    assert sorted(path.name for path in mom.iterdir()) == ["epilogue"]
    # The node software of an installation, which jobs may still use, goes by `udi-admin uninstall`.
    assert [path for path in left(root) if not path.endswith(".zip")] == ["udi", "udi/node"]
