"""The site's files put in place: ours replaced, others' kept, and all or nothing."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest

from admin.install.installing import Installed, install, install_programs
from tests.unit.cray_standins import StandIns
from tests.unit.rendered_site import ARGUMENTS, files_of, sh
from udiroot.errors import NotPermitted, UpstreamFailed


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path)


def test_installing_twice_changes_nothing(cray: StandIns) -> None:
    root = cray.directory / "root"
    files = files_of(cray)
    assert len(install(str(root), files).changed) == len(files)
    again = install(str(root), files)
    assert again.changed == again.advice == []


def test_programs_that_are_in_place_are_not_written_again(tmp_path: Path) -> None:
    programs = {"/opt/udi/node/ssh/sshd": b"\x7fELF 1", "/opt/udi/node/ssh/ssh": b"\x7fELF 2"}
    paths = [f"{tmp_path}{path}" for path in programs]
    assert install_programs(str(tmp_path), programs) == paths
    assert install_programs(str(tmp_path), programs) == []
    sshd, ssh = map(Path, paths)
    sshd.chmod(0o775)
    ssh.rename(tmp_path / "elsewhere")
    ssh.symlink_to(tmp_path / "elsewhere")
    assert install_programs(str(tmp_path), programs) == paths
    assert [path.lstat().st_mode for path in (sshd, ssh)] == [0o100755] * 2
    sshd.write_bytes(b"damaged")
    assert install_programs(str(tmp_path), programs) == paths[:1]


def test_shared_files_keep_what_is_not_ours(cray: StandIns) -> None:
    root = cray.directory / "root"
    health = Path(f"{root}{cray.site.install.nodehealth_conf}")
    roots = Path(f"{root}{cray.site.install.roots_conf}")
    for path, text in (
        (health, "connecttime: 60\n[plugin]\nCommand: /theirs"),
        (roots, "DSL=/dsl\nUDI = /var/udi\nX=/x"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    roots.rename(roots.with_name("real"))
    roots.symlink_to("real")
    health.chmod(0o600)
    install(str(root), files_of(cray))
    assert roots.is_symlink() and health.stat().st_mode & 0o777 == 0o600
    assert roots.read_text() == "DSL=/dsl\nUDI=/var/udi\nX=/x"
    text = health.read_text()
    assert text.startswith("connecttime: 60\n[plugin]\nCommand: /theirs\n# >>> shifter-xc >>>\n")
    assert "Sets: Reservation\n# <<< shifter-xc <<<\n" in text
    moved = dataclasses.replace(cray.site, install=dataclasses.replace(cray.site.install, node_prefix="/other"))
    install(str(root), files_of(cray, moved))
    assert health.read_text().count("# >>> shifter-xc >>>") == 1
    assert "Command: /other/opt/udi/node/nodehealth-check\n" in health.read_text()


FOREIGN = [
    "#!/bin/sh\ntheirs\n",
    "#!/bin/sh\n# calls shifter-xc, which is installed by hand\n/opt/udi/bin/old-prologue\n",
    "#!/bin/sh\n# shifter-xc: run by pbs_mom before a job. Rendered by udi-admin; local changes are overwritten.\n",
    "#!/bin/sh\n" + "theirs\n" * 5 + "# installed by shifter-xc 0.1.0; local changes are overwritten\n",
    "#!/bin/sh\n# installed by shifter-xc; local changes are overwritten\n",
]
"""Hooks of a site's own, which may well mention us."""


@pytest.mark.parametrize("name", ["prologue", "epilogue"])
@pytest.mark.parametrize("text", FOREIGN)
def test_a_hook_of_the_sites_own_stays_and_calls_ours(cray: StandIns, name: str, text: str) -> None:
    root = cray.directory / "root"
    files = files_of(cray)
    theirs = Path(f"{root}{cray.directory}/mom_priv/{name}")
    theirs.parent.mkdir(parents=True)
    theirs.write_text(text)
    theirs.chmod(0o500)
    ours = theirs.with_name(f"udi-{name}")
    done = install(str(root), files)
    assert theirs.read_text() == text and theirs.stat().st_mode & 0o777 == 0o500
    assert ours.stat().st_mode & 0o777 == 0o555 and str(ours) in done.changed and len(done.changed) == len(files)
    [advice] = done.advice
    line = advice.partition(" exits: ")[2]
    assert line == f'{cray.directory}/mom_priv/udi-{name} "$@" || exit $?'
    assert sh("/bin/sh", "-n", ours) == (0, "")
    theirs.chmod(0o700)
    theirs.write_text(f"{text}{line}\n")
    assert install(str(root), files) == Installed([], [])
    theirs.write_text(f"{text}# {line}\n")
    assert install(str(root), files).advice == [advice]


def test_the_line_that_is_advised_works(cray: StandIns) -> None:
    """The site's hook runs ours, with its arguments, and exits as ours does."""
    theirs = cray.directory / "mom_priv/prologue"
    theirs.parent.mkdir()
    theirs.write_text("#!/bin/sh\necho theirs\n")
    theirs.chmod(0o755)
    advice = install("/", [file for file in files_of(cray) if file.path.endswith("logue")]).advice[0]
    theirs.write_text(f"#!/bin/sh\necho theirs\n{advice.partition(' exits: ')[2]}\nexit 0\n")
    cray.qstat_job("PBS_O_HOME=/home/u")
    assert sh(theirs, *ARGUMENTS) == (0, "theirs\n")
    ours = theirs.with_name("udi-prologue")
    ours.chmod(0o755)
    ours.write_text('#!/bin/sh\necho "ours $*"\nexit 2\n')
    assert sh(theirs, *ARGUMENTS) == (2, f"theirs\nours {' '.join(ARGUMENTS)}\n")


def test_a_submit_filter_of_the_sites_own_stays(cray: StandIns) -> None:
    root = cray.directory / "root"
    theirs = Path(f"{root}{cray.directory}/torque/torque.cfg")
    theirs.parent.mkdir(parents=True)
    theirs.write_text("QSUBSLEEP 1\nSUBMITFILTER /theirs\n")
    done = install(str(root), files_of(cray))
    assert theirs.read_text() == "QSUBSLEEP 1\nSUBMITFILTER /theirs\n"
    assert len(done.advice) == 1 and "/theirs" in done.advice[0] and "udi-submit-filter" in done.advice[0]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("etc/opt/cray/cnrte/roots.conf", "DSL=/dsl\nUDI=/other\n", "UDI=/other"),
        ("etc/opt/cray/cnrte/roots.conf", "  UDI = /other/udi", "UDI = /other/udi"),
        ("etc/profile.d/udi.sh", "export UDI_HOME=/theirs\n", "udi.sh was not installed by shifter-xc"),
        ("opt/udi/bin/udi", "#!/bin/sh\n# shifter-xc\n", "udi was not installed by shifter-xc"),
    ],
)
def test_what_has_no_place_beside_it_stops_before_anything_changes(
    cray: StandIns, name: str, text: str, words: str
) -> None:
    root = cray.directory / "root"
    theirs = root / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text(text)
    with pytest.raises(NotPermitted) as caught:
        install(str(root), files_of(cray))
    assert words in caught.value.message and str(theirs) in caught.value.hint
    assert [path for path in root.rglob("*") if path.is_file()] == [theirs]


def test_all_that_is_in_the_way_is_named_and_the_hint_can_be_followed(cray: StandIns) -> None:
    root = cray.directory / "root"
    (root / "etc/profile.d").mkdir(parents=True)
    for name in ("udi.sh", "udi.csh"):
        (root / "etc/profile.d" / name).write_text("theirs\n")
    with pytest.raises(NotPermitted) as caught:
        install(str(root), files_of(cray))
    assert "udi.sh was" in caught.value.message and "udi.csh was" in caught.value.message
    assert sh("/bin/sh", "-ec", caught.value.hint) == (0, "")
    install(str(root), files_of(cray))
    assert (root / "etc/profile.d/udi.sh.site").read_text() == "theirs\n"


def test_a_link_of_the_sites_own_is_not_replaced(cray: StandIns) -> None:
    root = cray.directory / "root"
    hook = Path(f"{root}{cray.directory}/mom_priv/prologue")
    hook.parent.mkdir(parents=True)
    hook.symlink_to("/nowhere")
    done = install(str(root), files_of(cray))
    assert hook.is_symlink() and len(done.advice) == 1


@pytest.mark.parametrize("kind", ["a directory", "a FIFO", "a device"])
@pytest.mark.parametrize("name", ["mom_priv/prologue", "mom_priv/udi-epilogue", "roots.conf", "torque/torque.cfg"])
def test_what_is_no_file_is_moved_by_people(cray: StandIns, name: str, kind: str) -> None:
    root = cray.directory / "root"
    path = Path(f"{root}{cray.site.install.roots_conf if name == 'roots.conf' else cray.directory / name}")
    path.parent.mkdir(parents=True)
    if name == "mom_priv/udi-epilogue":
        path.with_name("epilogue").write_text("#!/bin/sh\n")
    match kind:
        case "a directory":
            path.mkdir()
        case "a FIFO":
            os.mkfifo(path)
        case _:
            path.symlink_to("/dev/null")
    with pytest.raises(NotPermitted, match="is not a regular file") as caught:
        install(str(root), files_of(cray))
    assert sh("/bin/sh", "-ec", caught.value.hint) == (0, "")
    assert install(str(root), files_of(cray)).changed


def test_a_hook_that_is_no_shell_script_gets_other_advice(cray: StandIns) -> None:
    root = cray.directory / "root"
    for name in ("prologue", "epilogue"):
        theirs = Path(f"{root}{cray.directory}/mom_priv/{name}")
        theirs.parent.mkdir(parents=True, exist_ok=True)
        theirs.write_bytes(b"\x7fELF\0\xff" * 1000)
    done = install(str(root), files_of(cray))
    assert all("it is not a shell script" in advice and '" || exit $?' in advice for advice in done.advice)


def test_a_hook_that_names_another_file_does_not_call_ours(cray: StandIns) -> None:
    root = cray.directory / "root"
    theirs = Path(f"{root}{cray.directory}/mom_priv/prologue")
    theirs.parent.mkdir(parents=True)
    theirs.write_text(f"#!/bin/sh\n{cray.directory}/mom_priv/udi-prologue.old x\n")
    assert len(install(str(root), files_of(cray)).advice) == 1


@pytest.mark.parametrize("size", ["16k", "48k"])
def test_a_disk_that_fills_on_the_way_changes_nothing(cray: StandIns, size: str) -> None:
    """The old files stay, all of them, and nothing half-made beside them."""
    root = cray.directory / "root"
    root.mkdir()
    files = files_of(cray)
    old = [dataclasses.replace(file, text="old\n") for file in files if file.kind == "complete"][:3]
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "udi-test", root], check=False).returncode:
        pytest.skip("needs to mount")
    try:
        install(str(root), old)
        before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        with pytest.raises(UpstreamFailed, match="cannot be written: no space left on device") as caught:
            install(str(root), files)
        assert "nothing was installed" in caught.value.hint
        assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
        subprocess.run(["mount", "-o", "remount,ro", root], check=True)
        with pytest.raises(UpstreamFailed, match="cannot be written: read-only file system"):
            install(str(root), files)
    finally:
        subprocess.run(["umount", root], check=True)


@pytest.mark.parametrize("mask", [0o077, 0o000, 0o777])
def test_modes_do_not_depend_on_the_umask(cray: StandIns, mask: int) -> None:
    root = cray.directory / "root"
    files = files_of(cray)
    before = os.umask(mask)
    try:
        install(str(root), files)
    finally:
        os.umask(before)
    modes = {str(path.relative_to(root)): path.stat().st_mode & 0o7777 for path in root.rglob("*")}
    assert {mode for name, mode in modes.items() if (root / name).is_dir()} == {0o755}
    assert {f"/{name}": mode for name, mode in modes.items() if (root / name).is_file()} == {
        file.path: file.mode for file in files
    }
    assert root.stat().st_mode & 0o777 == 0o755
