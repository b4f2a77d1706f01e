"""The site's files: rendered, put in place, and run as a shell runs them."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from admin.install.installing import Installed, install, render_below
from admin.seams.machines import machine_of
from admin.sitefiles.all_files import site_files
from tests.unit.cray_standins import StandIns
from udi.config import SiteConfig
from udi.sitefiles import SiteFile, is_ours, marked
from udiroot.errors import NotPermitted, UpstreamFailed


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path)


def rendered(cray: StandIns, site: SiteConfig | None = None) -> Path:
    directory = cray.directory / "rendered"
    render_below(str(directory), files_of(cray, site))
    return directory


def files_of(cray: StandIns, site: SiteConfig | None = None) -> list[SiteFile]:
    site = site or cray.site
    return site_files(site, machine_of(site), str(cray.config_path))


def find(directory: Path, name: str) -> Path:
    return next(path for path in directory.rglob(name) if path.is_file())


def with_python(cray: StandIns, path: Path, said: str = "python") -> Path:
    """The script with a program that only says its last arguments in Python's place, as a success."""
    fake = cray.directory / "fake python"
    success = re.search(r"^(\d+) \|", path.read_text(), re.MULTILINE)
    fake.write_text(f'#!/bin/sh\nshift 3\necho "{said} $*"\nexit {success[1] if success else 0}\n')
    fake.chmod(0o755)
    changed = path.with_suffix(".changed")
    changed.write_text(path.read_text().replace(sys.executable, f"'{fake}'"))
    changed.chmod(0o755)
    return changed


def sh(*words: object, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": "/usr/bin:/bin"} | environment,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def test_every_shell_file_is_valid_and_quoted(cray: StandIns) -> None:
    odd = "/odd $(touch owned) 'quoted'"
    site = dataclasses.replace(
        cray.site,
        other_tables={"torque": {"qstat": "/odd $(touch owned) 'quoted'"}},
        jobs=dataclasses.replace(cray.site.jobs, state=odd),
        node=dataclasses.replace(cray.site.node, root=odd, run=odd),
    )
    directory = rendered(cray, site)
    scripts = [
        p for p in directory.rglob("*") if p.is_file() and (p.read_text().startswith("#!/bin/sh") or p.suffix == ".sh")
    ]
    assert len(scripts) == 9
    for path in scripts:
        assert sh("/bin/sh", "-n", path) == (0, ""), path
    assert sh("/bin/sh", find(directory, "epilogue"), "1.vm") == (0, "")
    assert not (Path.cwd() / "owned").exists()


def test_shellcheck_is_content(cray: StandIns) -> None:
    found = shutil.which("shellcheck")
    if not found:
        pytest.skip("needs shellcheck")
    for path in rendered(cray).rglob("*"):
        if path.is_file() and (path.read_text().startswith("#!/bin/sh") or path.suffix == ".sh"):
            assert sh(found, "-s", "sh", path) == (0, ""), path


def test_modes(cray: StandIns) -> None:
    directory = rendered(cray)
    modes = {name: find(directory, name).stat().st_mode & 0o7777 for name in ("prologue", "epilogue", "udi", "udi.sh")}
    assert modes == {"prologue": 0o555, "epilogue": 0o555, "udi": 0o755, "udi.sh": 0o644}


ARGUMENTS = ("123.sdb", "u", "g", "name", "nodes=1", "batch", "")


def test_prologue_ends_before_python(cray: StandIns) -> None:
    script = with_python(cray, find(rendered(cray), "prologue"))
    body = cray.directory / "123.SC"
    body.write_text("#!/bin/sh\nhostname\n")
    cray.qstat_job("PBS_O_HOME=/home/u")
    assert sh(script, *ARGUMENTS, body) == (0, "")
    assert sh(script, *ARGUMENTS) == (0, "")


@pytest.mark.parametrize(
    "doubt", ["wanted", "pinned", "qstat fails", "qstat empty", "qstat cut", "arguments", "unreadable"]
)
def test_prologue_hands_doubts_on(cray: StandIns, doubt: str) -> None:
    script = with_python(cray, find(rendered(cray), "prologue"))
    body = cray.directory / "123.SC"
    body.write_text("#!/bin/sh\nhostname\n")
    cray.qstat_job("PBS_O_HOME=/home/u,UDI=debian:12" if doubt == "wanted" else "PBS_O_HOME=/home/u")
    words = [*ARGUMENTS, str(body)]
    match doubt:
        case "pinned":
            body.write_bytes(b"\0#!/bin/sh\n#UDI pinned x y\n")
        case "qstat fails":
            cray.tell("qstat.exit", "1")
        case "qstat empty":
            cray.tell("qstat.out", "")
        case "qstat cut":
            cray.tell("qstat.out", "<Data><Job>")
        case "arguments":
            words = words[:3]
        case "unreadable":
            body.unlink()
            body.mkdir()
    code, said = sh(script, *words)
    assert code == 0 and said.startswith(f"python --config {cray.config_path} 123.sdb")


def test_epilogue_ends_before_python(cray: StandIns) -> None:
    script = with_python(cray, find(rendered(cray), "epilogue"))
    for job in ("123.sdb", "../jobs", "", "..", "a/b", "12 3", "$(id)", "*"):
        assert sh(script, job) == (0, "")
    for job in ("123.sdb", "123[4].sdb"):
        (cray.directory / f"spool/jobs/{job}").mkdir(parents=True)
        assert sh(script, job, "u") == (0, f"python --config {cray.config_path} {job} u\n")


def test_profile(cray: StandIns) -> None:
    snippet = find(rendered(cray), "udi.sh")
    for value, root in (("debian:12", "UDI"), ("", "DSL")):
        line = f'set -eu; . {snippet}; echo "$CRAY_ROOTFS"'
        assert sh("/bin/sh", "-c", line, UDI=value, CRAY_ROOTFS="DSL") == (0, f"{root}\n")
    assert sh("/bin/sh", "-c", f"set -eu; . {snippet}; env | grep -c CRAY_ROOTFS") == (1, "0\n")
    csh = shutil.which("tcsh") or shutil.which("csh")
    if csh:
        line = f"source {find(rendered(cray), 'udi.csh')}; echo $CRAY_ROOTFS"
        assert sh(csh, "-f", "-c", line, UDI='a" b', CRAY_ROOTFS="DSL") == (0, "UDI\n")


PLUGIN = "/opt/cray/nodehealth/default/bin/libplugin.sh"


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash --posix", "busybox sh", "ksh"])
@pytest.mark.parametrize(
    ("library", "program", "code", "words"),
    [
        ("", "echo noise; echo udi: clean", 0, "udi: clean"),
        ("", "echo udi: mounts left; exit 1", 1, "udi: mounts left"),
        ("", "echo broken; exit 77", 1, "broken"),
        ("", "kill -9 $$", 1, "udi: the check exited with 137"),
        ("", "echo ModuleNotFoundError: x; exit 1", 0, "udi: nothing found, but the check could not be started"),
        ("", "exit 127", 0, "udi: nothing found, but the check could not be started"),
        ('log_output() { echo "logged: $1"; }', "echo udi: mounts left; exit 1", 1, "logged: udi: mounts left"),
        ("noise() { :; }; echo noise", "echo udi: clean", 0, "noise\nudi: clean"),
        ("exit 0", "echo udi: mounts left; exit 1", 1, "udi: mounts left"),
        ("if fi (", "echo udi: mounts left; exit 1", 1, "udi: mounts left"),
    ],
)
def test_nodehealth_check(cray: StandIns, shell: str, library: str, program: str, code: int, words: str) -> None:
    interpreter, *options = shell.split()
    found = shutil.which(interpreter)
    if not found:
        pytest.skip(f"no {interpreter} here")
    fake = cray.directory / "python3"
    fake.write_text(f"#!/bin/sh\n{program}\n")
    fake.chmod(0o755)
    plugin = cray.directory / "libplugin.sh"
    if library:
        plugin.write_text(library + "\n")
    site = dataclasses.replace(cray.site, node=dataclasses.replace(cray.site.node, python=(str(fake),)))
    script = find(rendered(cray, site), "nodehealth-check")
    script.write_text(script.read_text().replace(PLUGIN, str(plugin)))
    assert sh(found, *options, script) == (code, f"{words}\n")


def test_nodehealth_check_without_python_still_sees_the_record(cray: StandIns) -> None:
    run = cray.directory / "run udi"
    run.mkdir()
    node = dataclasses.replace(cray.site.node, python=("/no/python",), run=str(run))
    script = find(rendered(cray, dataclasses.replace(cray.site, node=node)), "nodehealth-check")
    assert sh("/bin/sh", script)[0] == 0
    (run / "job").touch()
    code, words = sh("/bin/sh", script)
    assert code == 1 and f"{run}/job is left" in words


def test_installing_twice_changes_nothing(cray: StandIns) -> None:
    root = cray.directory / "root"
    files = files_of(cray)
    assert len(install(str(root), files).changed) == len(files)
    again = install(str(root), files)
    assert again.changed == again.advice == []


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


def test_a_relative_configuration_is_made_absolute(cray: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(cray.directory)
    for file in site_files(cray.site, machine_of(cray.site), "udi.toml"):
        assert "--config udi.toml" not in file.text
        assert "--config" not in file.text or f"--config {cray.config_path}" in file.text


def test_every_complete_file_is_recognized(cray: StandIns) -> None:
    for file in files_of(cray):
        if file.kind == "complete":
            assert is_ours(marked(file.text)) and not is_ours(file.text)
            assert marked(file.text).startswith("#!") == file.text.startswith("#!")


# The submit filter where the program cannot be started

PLAIN = {"PATH": "/usr/bin:/bin"}


SHELLS = ("sh", "bash", "busybox sh")


@pytest.fixture
def shell(request: pytest.FixtureRequest) -> list[str]:
    words = str(request.param).split()
    if not shutil.which(words[0]):
        pytest.skip(f"needs {words[0]}")
    return words


CANNOT_START = {
    "crashing": "kill -SEGV $$",
    "killed": "kill -KILL $$",
    "without its standard library": "echo 'Fatal Python error: init_fs_encoding' >&2; exit 1",
    "without a library": "echo 'error while loading shared libraries' >&2; exit 127",
    "without its loader": "",
}


FAULTS = ("missing", "not executable", "a directory", "in a closed directory", "without the package", "foreign")
BROKEN = pytest.mark.parametrize(
    ("shell", "filter_without_program"),
    [*(("sh", fault) for fault in (*FAULTS, *CANNOT_START)), ("bash", "crashing"), ("busybox sh", "killed")],
    indirect=True,
)


@pytest.fixture
def filter_without_program(cray: StandIns, request: pytest.FixtureRequest) -> Path:
    """The installed filter, whose interpreter or package is gone."""
    python = cray.directory / "environment/python3"
    python.parent.mkdir()
    match request.param:
        case "not executable":
            python.write_text("")
        case "a directory":
            python.mkdir()
        case "in a closed directory":
            python = cray.directory / "environment/python3/x"
            python.parent.write_text("")
        case "without the package":
            python = Path("/usr/bin/python3")
        case "foreign":
            python.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(44))
            python.chmod(0o755)
        case "without its loader":
            python.write_text("#!/no/such/loader\n")
            python.chmod(0o755)
        case fault if fault in CANNOT_START:
            python.write_text(f"#!/bin/sh\n{CANNOT_START[fault]}\n")
            python.chmod(0o755)
    script = find(rendered(cray), "udi-submit-filter")
    text = re.sub(r"^python=.*$", f"python={python}", script.read_text(), flags=re.MULTILINE)
    script.write_text(text)
    return script


SCRIPT = b"#!/bin/sh\n#PBS -l nodes=2\necho UDI=1 studio \0\xff\nno newline"


@pytest.mark.parametrize("shell", SHELLS, indirect=True)
def test_the_installed_filter_passes_its_arguments_on(cray: StandIns, shell: list[str]) -> None:
    script = find(rendered(cray), "udi-submit-filter")
    for arguments, code, out in ((["-l", "x y", "job.sh"], 0, SCRIPT), (["-v", "udi=debian:12"], 255, b"")):
        done = subprocess.run([*shell, script, *arguments], input=SCRIPT, capture_output=True, env=PLAIN, check=False)
        assert (done.returncode, done.stdout) == (code, out)
        assert done.stderr.count(b"\n") == (code != 0)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*shell, script], input=SCRIPT, stdout=full, stderr=subprocess.PIPE, env=PLAIN, check=False
        )
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1


@BROKEN
def test_a_missing_program_costs_a_job_without_an_image_nothing(filter_without_program: Path, shell: list[str]) -> None:
    for arguments in ([], ["-l", "nodes=2", "job.sh"], ["-v", "A=1,STUDI=x,MY_UDI=3"]):
        for script in (SCRIPT, b"\n\n"):
            done = subprocess.run(
                [*shell, filter_without_program, *arguments], input=script, capture_output=True, env=PLAIN, check=False
            )
            assert (done.returncode, done.stdout, done.stderr) == (0, script, b"")


@BROKEN
def test_a_missing_program_refuses_a_job_with_an_image(filter_without_program: Path, shell: list[str]) -> None:
    submissions: list[tuple[list[str], bytes, dict[str, str]]] = [
        (["-v", "UDI=debian:12"], SCRIPT, {}),
        (["-vUDI=debian:12"], SCRIPT, {}),
        (["-v", "A=1,UDI=debian:12"], SCRIPT, {}),
        (["-v", "UDI"], SCRIPT, {"UDI": "x"}),
        (["-V"], SCRIPT, {"UDI": "x"}),
        ([], b"#!/bin/sh\n#PBS -v UDI=debian:12\n", {}),
        ([], b"#!/bin/sh\n#PBS -N x -v A=1,UDI\n", {}),
    ]
    for arguments, script, environment in submissions:
        done = subprocess.run(
            [*shell, filter_without_program, *arguments],
            input=script,
            capture_output=True,
            env=PLAIN | environment,
            check=False,
        )
        assert (done.returncode, done.stdout) == (255, b"")
        assert b"site error, not your job's fault" in done.stderr and done.stderr.count(b"\n") == 1


def test_a_script_that_died_with_the_program_is_not_submitted_empty(cray: StandIns) -> None:
    """qsub takes an empty script, prints an id, and makes no job of it."""
    python = cray.directory / "python3"
    python.write_text("#!/bin/sh\ncat >/dev/null\nkill -KILL $$\n")
    python.chmod(0o755)
    script = find(rendered(cray), "udi-submit-filter")
    text = script.read_text()
    for old, new in ((sys.executable, str(python)), ("code = main()", "os.read(0, 1 << 20); raise MemoryError")):
        assert old in text
        script.write_text(text.replace(old, new))
        done = subprocess.run(["sh", script], input=SCRIPT, capture_output=True, env=PLAIN, check=False)
        assert (done.returncode, done.stdout) == (255, b"") and done.stderr.count(b"\n") == 1


def test_one_line_kind() -> None:
    file = SiteFile("/torque.cfg", 0o644, "SUBMITFILTER /opt/udi/bin/udi-submit-filter\n", "line", "SUBMITFILTER")
    assert os.path.basename(file.text.strip()) == "udi-submit-filter"


def test_an_interrupt_while_a_program_loads_is_no_traceback(cray: StandIns) -> None:
    script = find(rendered(cray), "udi-admin")
    raised = "import os; os.kill(os.getpid(), signal.SIGINT)\nfrom admin.cli"
    text = script.read_text()
    assert "from admin.cli" in text
    script.write_text(text.replace("from admin.cli", raised))
    done = subprocess.run([script, "--version"], capture_output=True, env=PLAIN, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")
    script.write_text(text)
    assert subprocess.run([script, "--version"], capture_output=True, env=PLAIN, check=False).returncode == 0
