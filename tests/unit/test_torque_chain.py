"""Hooks of the site's own beside ours: the chain as pbs_mom runs it, and the submit filter that runs another one."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from admin.config_check import errors_of
from admin.install.installing import install
from admin.seams.machines import machine_of
from admin.seams.managers import manager_of
from admin.sitefiles.all_files import site_files
from tests.unit.cray_standins import StandIns, wait_for
from torque_hooks.chain import examine
from torque_hooks.settings import TorqueConfig
from udi import config
from udi.config import SiteConfig
from udiroot.errors import NotPermitted

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hooks are root's, and so are the programs of a chain")

JOB = ("7.sdb", "alice", "users", "it's a name", "nodes=2", "batch", "")
SECONDS = 2
"""What programs have together where one of them hangs."""


class Host:
    """A MOM node with a chain, whose own hooks of shifter-xc are replaced by small programs."""

    def __init__(self, stand_ins: StandIns, **settings: object) -> None:
        self.stand_ins = stand_ins
        self.mom = stand_ins.directory / "mom_priv"
        self.said = stand_ins.directory / "said"
        text = stand_ins.config_path.read_text()
        given = {"chain": "50-udi", "chain_deadline": 60} | settings
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items())
        text = text.replace("[torque]\n", f"[torque]\n{lines}")
        text += f'[install]\nbin = "{stand_ins.directory}/opt/bin"\n'
        stand_ins.config_path.write_text(text)
        self.site: SiteConfig = config.parse(text, str(stand_ins.config_path))

    def install(self) -> None:
        wanted = (str(self.mom), str(self.stand_ins.directory / "torque"), self.site.install.bin)
        files = site_files(self.site, machine_of(self.site), str(self.stand_ins.config_path))
        install("", [file for file in files if file.path.startswith(wanted)])
        for kind in ("prologue", "epilogue"):
            hook = self.mom / kind  # with a shorter pause before a requeue
            hook.chmod(0o755)
            hook.write_text(hook.read_text().replace("sleep 3\n", "sleep 0.01\n"))
            self.add(kind, "50-udi", "echo ours")

    def add(self, kind: str, name: str, body: str) -> Path:
        path = self.mom / f"{kind}.d" / name
        path.unlink(missing_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name}" >>"{self.said}"\n{body}\n')
        path.chmod(0o555)
        return path

    def start(self, kind: str, shell: str = "/bin/sh", *arguments: str) -> subprocess.Popen[str]:
        self.said.unlink(missing_ok=True)
        return subprocess.Popen(
            [shell, str(self.mom / kind), *(arguments or JOB)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": "/bin:/usr/bin", "LANG": "C.UTF-8", "PBS_NODENUM": "0"},
            cwd=self.mom,
            start_new_session=True,
        )

    def run(self, kind: str, shell: str = "/bin/sh") -> tuple[int, str]:
        hook = self.start(kind, shell)
        output, _ = hook.communicate(timeout=60)
        return hook.returncode, output

    @property
    def ran(self) -> list[str]:
        return self.said.read_text().split() if self.said.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(StandIns(tmp_path))
    made.install()
    return made


@pytest.fixture
def hasty(tmp_path: Path) -> Host:
    """One that waits for a program no longer than a test can."""
    made = Host(StandIns(tmp_path), chain_deadline=SECONDS)
    made.install()
    return made


@pytest.fixture(params=["sh", "bash", "ksh", "busybox"])
def shell(request: pytest.FixtureRequest) -> str:
    found = shutil.which(str(request.param))
    if found is None:
        pytest.skip(f"needs {request.param}")
    if request.param != "busybox":
        return found
    wrapper = request.getfixturevalue("tmp_path") / "ash"
    wrapper.write_text(f'#!/bin/sh\nexec {found} sh "$@"\n')
    wrapper.chmod(0o755)
    return str(wrapper)


def test_programs_run_in_order_of_name_with_all_that_pbs_mom_gave(host: Host, shell: str) -> None:
    host.add("prologue", "90-late", 'echo "$# $4|$PWD|$PBS_NODENUM|${LC_ALL-none}|$(umask)" >&2')
    host.add("prologue", "10-early", "echo early")
    host.add("prologue", "B-upper", "")
    host.add("prologue", "a-lower", "")
    assert host.run("prologue", shell) == (0, f"early\nours\n7 it's a name|{host.mom}|0|none|0022\n")
    assert host.ran == ["10-early", "50-udi", "90-late", "B-upper", "a-lower"]


def test_leftovers_and_files_without_their_execute_bits_are_passed_over(host: Host) -> None:
    for name in (".hidden", "10-x~", "10-x.bak", "10-x.rpmsave", "10-x.dpkg-old", "10-x.swp"):
        host.add("prologue", name, "exit 1")
    host.add("prologue", "20-off", "exit 1").chmod(0o444)
    (host.mom / "prologue.d/README").mkdir()
    host.add("prologue", "30-with.dots.sh", "")
    assert host.run("prologue") == (0, "ours\n")
    assert host.ran == ["30-with.dots.sh", "50-udi"]
    found = examine(str(host.mom / "prologue.d"))
    assert found.programs == host.ran and found.refused == [] and len(found.passed_over) == 8


@pytest.mark.parametrize("code", [1, 2, 124, 255])
def test_the_first_failure_of_a_prologue_ends_it_with_its_code(host: Host, code: int) -> None:
    """1 deletes the job, and any other sends it back (torque-reference b)."""
    host.add("prologue", "60-bad", f"echo why >&2; exit {code}")
    host.add("prologue", "70-never", "")
    assert host.run("prologue") == (code, f"ours\nwhy\nprologue: 60-bad ended with exit code {code}\n")
    assert host.ran == ["50-udi", "60-bad"]


@pytest.mark.parametrize("code", [1, 2])
def test_what_ours_decides_is_passed_on(host: Host, code: int) -> None:
    host.add("prologue", "50-udi", f"echo udi-prologue: why >&2; exit {code}")
    host.add("prologue", "70-never", "")
    assert host.run("prologue") == (code, "udi-prologue: why\n")


def test_every_program_of_an_epilogue_runs_and_the_first_failure_is_its_code(host: Host, shell: str) -> None:
    host.add("epilogue", "10-bad", "exit 3")
    host.add("epilogue", "20-killed", "kill -KILL $$")
    host.add("epilogue", "60-bad", "exit 4")
    code, output = host.run("epilogue", shell)
    assert code == 3 and host.ran == ["10-bad", "20-killed", "50-udi", "60-bad"]
    assert "20-killed was terminated by signal 9" in output and "60-bad ended with exit code 4" in output


@pytest.mark.parametrize("number", ["KILL", "SEGV", "TERM"])
def test_a_program_that_a_signal_ends_is_no_success(host: Host, number: str) -> None:
    """pbs_mom would take it for one."""
    host.add("prologue", "60-killed", f"kill -{number} $$")
    code, output = host.run("prologue")
    assert code == 2 and "60-killed was terminated by signal" in output


@pytest.mark.parametrize("body", ["sleep 60", "trap '' TERM; sleep 60 & wait; sleep 60"])
def test_a_program_that_hangs_is_ended_and_the_job_sent_back(hasty: Host, body: str) -> None:
    hasty.add("prologue", "60-hangs", body)
    began = time.monotonic()
    code, output = hasty.run("prologue")
    assert code == 124 and f"60-hangs did not finish within {SECONDS} s" in output
    assert SECONDS - 1 < time.monotonic() - began < SECONDS + 30


def test_programs_share_the_time_that_the_site_has(hasty: Host) -> None:
    """One that hangs takes no other's time, and all together end within the limit."""
    hasty.add("epilogue", "10-hangs", "sleep 60")
    hasty.add("epilogue", "60-hangs", "sleep 60")
    hasty.add("epilogue", "70-quick", "")
    began = time.monotonic()
    code, output = hasty.run("epilogue")
    assert code == 124 and hasty.ran == ["10-hangs", "50-udi", "60-hangs", "70-quick"]
    assert output.count("did not finish within 1 s") == 2
    assert time.monotonic() - began < SECONDS + 30


def test_a_signal_reaches_the_program_of_a_prologue_and_nothing_runs_after_it(host: Host, shell: str) -> None:
    host.add(
        "prologue",
        "50-udi",
        f"trap 'echo undone; exit 2' TERM; touch {host.mom}/there; sleep 20 >/dev/null 2>&1 & wait",
    )
    host.add("prologue", "70-never", "")
    hook = host.start("prologue", shell)
    wait_for((host.mom / "there").exists)
    os.kill(hook.pid, signal.SIGTERM)
    output, _ = hook.communicate(timeout=60)
    assert (hook.returncode, "undone" in output, host.ran) == (2, True, ["50-udi"])


def test_no_signal_ends_an_epilogue(host: Host) -> None:
    host.add("epilogue", "10-slow", f"touch {host.mom}/there; sleep 1")
    hook = host.start("epilogue")
    wait_for((host.mom / "there").exists)
    for _ in range(3):
        hook.terminate()
    output, _ = hook.communicate(timeout=60)
    assert (hook.returncode, host.ran) == (0, ["10-slow", "50-udi"]), output


def _others_may_write(host: Host) -> None:
    (host.mom / "prologue.d/10-site").chmod(0o775)


def _anothers(host: Host) -> None:
    os.chown(host.mom / "prologue.d/10-site", 1001, 0)


def _link(host: Host) -> None:
    (host.mom / "prologue.d/20-link").symlink_to("10-site")


def _open_directory(host: Host) -> None:
    (host.mom / "prologue.d").chmod(0o777)


def _anothers_directory(host: Host) -> None:
    os.chown(host.mom / "prologue.d", 1001, 0)


def _linked_directory(host: Host) -> None:
    (host.mom / "prologue.d").rename(host.mom / "real.d")
    (host.mom / "prologue.d").symlink_to("real.d")


def _no_directory(host: Host) -> None:
    (host.mom / "prologue.d").rename(host.mom / "real.d")


@pytest.mark.parametrize(
    "spoil",
    [_others_may_write, _anothers, _link, _open_directory, _anothers_directory, _linked_directory, _no_directory],
)
def test_what_others_than_root_could_have_written_is_not_run(host: Host, spoil: Callable[[Host], None]) -> None:
    """Nothing runs, the job is sent back, and check-config says the same."""
    host.add("prologue", "10-site", "")
    spoil(host)
    code, output = host.run("prologue")
    assert code == 2 and host.ran == [] and "[site error (not your job's fault)]" in output
    assert examine(str(host.mom / "prologue.d")).refused
    assert any("torque.chain: " in error.message for error in errors_of(str(host.stand_ins.config_path)))


def test_an_epilogue_runs_all_but_what_it_does_not_trust(host: Host) -> None:
    host.add("epilogue", "10-site", "").chmod(0o777)
    code, output = host.run("epilogue")
    assert (code, host.ran) == (2, ["50-udi"]) and "it is not run" in output


def test_prologalarm_must_leave_time_for_the_chain(host: Host) -> None:
    alone = TorqueConfig()
    with_chain = dataclasses.replace(alone, chain="50-udi")
    assert with_chain.least_prologalarm == alone.least_prologalarm + alone.chain_deadline + 15


def test_a_hook_of_the_sites_own_is_moved_into_the_chain_by_the_hint(tmp_path: Path) -> None:
    made = Host(StandIns(tmp_path))
    made.mom.mkdir()
    theirs = made.mom / "prologue"
    theirs.write_text("#!/bin/sh\necho theirs\n")
    theirs.chmod(0o500)
    with pytest.raises(NotPermitted) as caught:
        made.install()
    subprocess.run(["/bin/sh", "-ec", caught.value.hint], check=True)
    made.install()
    assert made.run("prologue") == (0, "theirs\nours\n")


def test_programs_that_nothing_runs_any_more_are_named(host: Host) -> None:
    host.add("epilogue", "10-site", "")
    text = host.stand_ins.config_path.read_text().replace('chain = "50-udi"', 'chain = ""')
    manager = manager_of(config.parse(text, "udi.toml"))
    assert any("10-site" in words and "torque.chain is not set" in words for words in manager.advice())
    assert any("10-site" in words for words in manager_of(host.site).callers(""))


# The program that the site's hook runs, where that is killed


def test_a_set_up_does_not_outlive_the_hook_that_runs_it(tmp_path: Path) -> None:
    """pbs_mom takes a chain that is killed for a success: the set-up must not go on beside the job and its epilogue."""
    stand_ins = StandIns(tmp_path)
    made = Host(stand_ins)
    wanted = str(made.mom)
    files = site_files(made.site, machine_of(made.site), str(stand_ins.config_path))
    install("", [file for file in files if file.path.startswith(wanted)])
    stand_ins.qstat_job("UDI=debian:12")
    stand_ins.tell("setupRoot.hang", "")
    stand_ins.tell("setupRoot.12", "silent")
    hook = made.start("prologue", "/bin/sh", "123.sdb", "root", "root", "run", "nodes=2:ppn=2", "batch", "")
    wait_for(lambda: stand_ins.calls("xtxqtcmd") != [])
    hook.kill()
    hook.wait()
    wait_for(lambda: [call.split()[0] for call in stand_ins.calls("xtxqtcmd")] == ["setupRoot", "unsetupRoot"])
    hook.communicate(timeout=60)


# The submit filter

SCRIPT = "#!/bin/sh\n#PBS -N x\naprun y\n"


def filtered(host: Host, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [f"{host.site.install.bin}/udi-submit-filter", *arguments],
        input=SCRIPT,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/bin:/usr/bin", "TMPDIR": str(host.stand_ins.directory)},
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(params=[True, False], ids=["theirs first", "ours first"])
def filters(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    stand_ins = StandIns(tmp_path)
    theirs = tmp_path / "their filter"
    return Host(stand_ins, site_filter=str(theirs), site_filter_first=request.param)


def their_filter(host: Host, body: str) -> None:
    path = host.stand_ins.directory / "their filter"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_both_filters_have_their_say(filters: Host) -> None:
    filters.install()
    their_filter(filters, f'echo "theirs: $*" >&2; tee {filters.said}; echo "# theirs"')
    left = set(os.listdir(filters.stand_ins.directory)) | {"said"}
    assert filtered(filters, "-l", "nodes=2", "a b") == (0, SCRIPT + "# theirs\n", "theirs: -l nodes=2 a b\n")
    assert filters.said.read_text() == SCRIPT
    assert set(os.listdir(filters.stand_ins.directory)) == left
    code, output, words = filtered(filters, "-v", "UDI=../x")
    assert (code, output) == (255, "") and "udi-submit-filter: " in words


@pytest.mark.parametrize(("body", "code"), [("cat >/dev/null; exit 255", 255), ("exit 3", 3), ("kill -9 $$", 137)])
def test_what_the_sites_filter_refuses_is_refused(filters: Host, body: str, code: int) -> None:
    filters.install()
    their_filter(filters, f"echo no >&2; {body}")
    got, _, words = filtered(filters)
    assert got == code and words.startswith("no\n")


def test_a_site_filter_that_is_missing_refuses_every_job(filters: Host) -> None:
    """Its policy is the site's: no job goes past it."""
    filters.install()
    code, _, words = filtered(filters)
    assert code == 255 and "torque.site_filter is not an executable program" in words
    [check] = [each for each in manager_of(filters.site).trials() if each.name == "torque.filter"]
    assert any("torque.site_filter: " in finding.what for finding in check.look())
    their_filter(filters, "cat")
    assert not any("torque.site_filter: " in finding.what for finding in check.look())


def test_the_line_of_the_sites_filter_is_taken_over(filters: Host) -> None:
    directory = filters.stand_ins.directory / "torque"
    directory.mkdir()
    theirs = filters.site.table(TorqueConfig).site_filter
    (directory / "torque.cfg").write_text(f"QSUBSLEEP 1\nSUBMITFILTER {theirs}\nX 1\n")
    filters.install()
    ours = f"{filters.site.install.bin}/udi-submit-filter"
    assert (directory / "torque.cfg").read_text() == f"QSUBSLEEP 1\nSUBMITFILTER {ours}\nX 1\n"
