"""`udi-admin uninstall`: the tree is as it was before installing, and nothing that is in use is removed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from admin import cli as admin_cli
from admin import uninstall_cli
from admin.seams.machines import machine_of
from admin.seams.managers import manager_of
from jobs.state import JobDirectory
from tests.unit.cray_standins import StandIns
from tests.unit.test_admin_commands import admin, state
from tests.unit.test_admin_slurm import Site
from udi.nodecommand import check_command, teardown_command
from udi.software import current

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root installs")


def _program(config_path: Path, *words: str) -> int:
    """The exit code of `udi-admin`."""
    with pytest.MonkeyPatch.context() as patched, pytest.raises(SystemExit) as exited:
        patched.setattr("sys.argv", ["udi-admin", "--config", str(config_path), *words])
        admin_cli.main()
    return int(exited.value.code or 0)


class Tree:
    """A root directory that is installed below, and what is in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, path: str, text: str, mode: int = 0o644) -> Path:
        file = Path(f"{self.root}{path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def picture(self) -> dict[str, str]:
        """Every file, link and directory: type, owner, mode, content."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            status = path.lstat()
            content = os.readlink(path) if path.is_symlink() else ""
            if path.is_file() and not path.is_symlink():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(self.root))] = f"{status.st_mode:o} {status.st_uid} {content}"
        return found


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    return _programs_built(StandIns(tmp_path))


def _programs_built(stand_ins: StandIns, more: str = "") -> StandIns:
    directory = stand_ins.directory
    (directory / "built").mkdir()
    for name in ("udi-run", "sshd", "ssh", "sshkey"):
        (directory / "built" / name).write_bytes(b"\x7fELF " + name.encode())
    text = f'[install]\nudi_run_built = "{directory}/built/udi-run"\nssh_built = "{directory}/built"\n'
    stand_ins.config_path.write_text(stand_ins.config_path.read_text() + text + more)
    return stand_ins


@pytest.fixture
def tree(cray: StandIns) -> Tree:
    (cray.directory / "root").mkdir()
    return Tree(cray.directory / "root")


def configured(cray: StandIns, torque: str) -> None:
    text = cray.config_path.read_text()
    cray.config_path.write_text(text.replace("[torque]\n", f"[torque]\n{torque}\n"))


def test_an_empty_tree_is_empty_again(cray: StandIns, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    assert admin(cray, "install", "--root", str(tree.root)) == 0
    assert len(tree.picture()) > 30
    assert admin(cray, "uninstall", "--root", str(tree.root)) == 0
    assert tree.picture() == {}
    capsys.readouterr()
    assert admin(cray, "uninstall", "--root", str(tree.root)) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("ending", ["", "\n"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_site_gets_its_tree_back(cray: StandIns, tree: Tree, ending: str, times: int) -> None:
    """With other roots, a submit filter that ours runs, NHC, and directories that stay although they are empty."""
    configured(cray, 'chain = "50-udi"\nsite_filter = "/site/filter"')
    mom = f"{cray.directory}/mom_priv"
    tree.put("/etc/opt/cray/cnrte/roots.conf", f"DSL=/dsl\nINITRAMFS=/{ending}")
    tree.put("/etc/opt/cray/nodehealth/nodehealth.conf", f"connecttime: 60{ending}", 0o640)
    tree.put(f"{cray.directory}/torque/torque.cfg", f"SUBMITFILTER  /site/filter\nQSUBSLEEP 1{ending}")
    tree.put(f"{mom}/config", "$prologalarm 500\n")
    tree.put(f"{mom}/prologue.d/README", "theirs\n")
    tree.put("/opt/udi/bin/theirs", "theirs\n")
    (tree.root / "etc/profile.d").mkdir()
    before = tree.picture()
    for _ in range(times):
        assert admin(cray, "install", "--root", str(tree.root)) == 0
    roots = (tree.root / "etc/opt/cray/cnrte/roots.conf").read_text()
    assert roots.splitlines() == ["DSL=/dsl", "INITRAMFS=/", "UDI=/var/udi"]
    assert "udi-submit-filter\nQSUBSLEEP 1" in Path(f"{tree.root}{cray.directory}/torque/torque.cfg").read_text()
    assert admin(cray, "uninstall", "--root", str(tree.root)) == 0
    assert tree.picture() == before


def test_a_dry_run_changes_nothing(cray: StandIns, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    assert admin(cray, "install", "--root", str(tree.root)) == 0
    before = tree.picture()
    capsys.readouterr()
    assert admin(cray, "uninstall", "--root", str(tree.root), "--dry-run") == 0
    told = capsys.readouterr().out
    assert tree.picture() == before
    assert admin(cray, "uninstall", "--root", str(tree.root)) == 0
    assert capsys.readouterr().out.replace("removed /", "would remove /") == told


def test_what_another_configuration_placed_goes_too(cray: StandIns, tree: Tree) -> None:
    assert admin(cray, "install", "--root", str(tree.root)) == 0
    text = cray.config_path.read_text()
    cray.config_path.write_text(text.replace("[install]\n", '[install]\nbin = "/usr/local/udi"\nprofile = "/etc/x"\n'))
    assert admin(cray, "install", "--root", str(tree.root)) == 0
    assert admin(cray, "uninstall", "--root", str(tree.root)) == 0
    assert tree.picture() == {}


def test_what_others_changed_or_added_stays_and_is_named(
    cray: StandIns, tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    assert admin(cray, "install", "--root", str(tree.root)) == 0
    tree.put("/opt/udi/node/ssh/ssh", "theirs\n")
    tree.put("/etc/profile.d/udi.sh", "theirs\n")
    tree.put("/opt/udi/bin/more", "theirs\n")
    capsys.readouterr()
    assert admin(cray, "uninstall", "--root", str(tree.root)) == 0
    files = sorted(str(path.relative_to(tree.root)) for path in tree.root.rglob("*") if path.is_file())
    assert files == ["etc/profile.d/udi.sh", "opt/udi/bin/more", "opt/udi/node/ssh/ssh"]
    told = capsys.readouterr().err
    for words in ("ssh was changed", "udi.sh is not ours any more", "/opt/udi/bin: is not empty"):
        assert words in told


def test_it_can_be_run_again_after_a_failure(cray: StandIns, tree: Tree) -> None:
    """The record goes last."""
    assert admin(cray, "install", "--root", str(tree.root)) == 0
    record = tree.root / "var/lib/udi/installed.json"
    text = record.read_text()
    assert admin(cray, "uninstall", "--root", str(tree.root)) == 0
    assert admin(cray, "install", "--root", str(tree.root)) == 0
    assert json.loads(record.read_text()) == json.loads(text)
    (tree.root / "opt/udi/bin/udi").unlink()
    assert admin(cray, "uninstall", "--root", str(tree.root)) == 0
    assert tree.picture() == {}


def test_a_hook_that_calls_ours_keeps_it(cray: StandIns, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = tree.put(f"{cray.directory}/mom_priv/prologue", "#!/bin/sh\n", 0o755)
    assert admin(cray, "install", "--root", str(tree.root)) == 0
    theirs.write_text(f'#!/bin/sh\n{cray.directory}/mom_priv/udi-prologue "$@" || exit $?\n')
    before = tree.picture()
    assert admin(cray, "uninstall", "--root", str(tree.root)) == 4
    assert "udi-prologue: remove that line" in capsys.readouterr().err
    assert tree.picture() == before
    theirs.write_text("#!/bin/sh\n")
    assert admin(cray, "uninstall", "--root", str(tree.root)) == 0


def test_programs_of_a_chain_keep_it(cray: StandIns, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    configured(cray, 'chain = "50-udi"')
    assert admin(cray, "install", "--root", str(tree.root)) == 0
    tree.put(f"{cray.directory}/mom_priv/epilogue.d/10-site", "#!/bin/sh\n", 0o755)
    assert admin(cray, "uninstall", "--root", str(tree.root)) == 4
    assert "10-site of " in capsys.readouterr().err
    assert admin(cray, "uninstall", "--root", str(tree.root), "--force") == 0
    assert [path.name for path in tree.root.rglob("*") if path.is_file()] == ["10-site"]


def test_a_submit_filter_that_calls_ours_keeps_it(
    cray: StandIns, tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.put(f"{cray.directory}/torque/torque.cfg", "SUBMITFILTER /site/filter\n")
    tree.put("/site/filter", '#!/bin/sh\nsed s/a/b/ | /opt/udi/bin/udi-submit-filter "$@"\n')
    assert admin(cray, "install", "--root", str(tree.root)) == 0
    assert admin(cray, "uninstall", "--root", str(tree.root)) == 4
    assert "/site/filter runs /opt/udi/bin/udi-submit-filter" in capsys.readouterr().err


def test_an_enabled_unit_keeps_it(cray: StandIns, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    assert admin(cray, "install", "--root", str(tree.root)) == 0
    wants = tree.root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir()
    (wants / "udi-gateway.service").symlink_to("/etc/systemd/system/udi-gateway.service")
    assert admin(cray, "uninstall", "--root", str(tree.root)) == 4
    assert "systemctl disable --now udi-gateway.service" in capsys.readouterr().err


def test_jobs_that_have_a_state_are_in_the_way(cray: StandIns) -> None:
    """With --root / alone, since jobs are this host's; tests/system has that."""
    JobDirectory(cray.site, "123.sdb").save(state(cray))
    JobDirectory(cray.site, "124.sdb").save(state(cray, "124.sdb"))
    (cray.directory / "spool/jobs/124.sdb/state.json").write_text("{")
    found = uninstall_cli.jobs_in_the_way(cray.site, manager_of(cray.site), machine_of(cray.site))
    assert found[0] == "job 123.sdb" and "124.sdb/state.json cannot be read" in found[1]


def test_slurm_that_runs_our_hooks_is_in_the_way(tmp_path: Path) -> None:
    """A Prolog that is missing drains each node."""
    host = Site(tmp_path)
    manager = manager_of(host.site)
    assert [words.split()[0] for words in manager.callers("")] == ["Prolog", "Epilog", "HealthCheckProgram"]
    host.write_conf(Prolog="(null)", Epilog="/site/epilog", HealthCheckProgram="(null)")
    assert manager.callers("") == []


def test_a_slurm_site_gets_its_tree_back(tmp_path: Path) -> None:
    host = Site(tmp_path)
    (tmp_path / "built").mkdir()
    (tmp_path / "built/udi-run").write_bytes(b"\x7fELF")
    text = host.path.read_text().replace("[install]\n", f'[install]\nudi_run_built = "{tmp_path}/built/udi-run"\n')
    host.path.write_text(text)
    tree = Tree(tmp_path / "root")
    tree.put(f"{tmp_path}/plugstack.conf", "required /usr/lib/other.so\noptional /usr/lib/more.so")
    before = tree.picture()
    for words, code in (("install", 0), ("uninstall", 0)):
        assert _program(host.path, words, "--root", str(tree.root)) == code
    assert tree.picture() == before


def test_versions_of_the_node_software_are_kept_for_the_jobs_that_they_set_up(cray: StandIns, tree: Tree) -> None:
    """The link is what installed files name; hooks name the file that it leads to, and old ones go in the end."""
    assert admin(cray, "install", "--root", str(tree.root)) == 0
    node = tree.root / "opt/udi/node"
    link, first = node / "udi.zip", os.readlink(node / "udi.zip")
    assert str(tree.root) not in first and hashlib.sha256((node / first).read_bytes()).hexdigest()[:16] in first
    site = dataclasses.replace(
        cray.site,
        node=dataclasses.replace(cray.site.node, zip=f"/dsl{link}"),
        install=dataclasses.replace(cray.site.install, zip=str(link)),
    )
    assert current(site) == f"/dsl{node}/{first}" and f"/dsl{node}/{first}" in teardown_command(site, "", "1", "0" * 32)
    assert f"/dsl{link}" in check_command(site, "")
    elsewhere = dataclasses.replace(site, node=dataclasses.replace(site.node, zip="/copy/udi.zip"))
    assert current(elsewhere) == "/copy/udi.zip"
    (cray.directory / "built/udi-run").write_bytes(b"\x7fELF another")
    assert admin(cray, "install", "--root", str(tree.root)) == 0
    second = os.readlink(link)
    assert sorted(path.name for path in node.glob("udi-*.zip")) == sorted((first, second)) and first != second
    old = time.time() - 100 * 86400
    os.utime(node / first, (old, old))
    assert admin(cray, "install", "--root", str(tree.root)) == 0
    assert [path.name for path in node.glob("udi-*.zip")] == [second]
