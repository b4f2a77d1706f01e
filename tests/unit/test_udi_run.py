"""`udi-run` itself, built from its source: what a program gets, byte for byte, and what a person reads instead."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests import udi_run
from udi.accounts import Account
from udi.config import parse
from udi.facts import Facts
from udi.rundata import run_data

IMAGE = "ab" * 32
ALICE = Account("alice", 1001, 1001, (1001,), "/", "/bin/sh")
DOCKER_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OWN = {
    "HOME": "/",
    "USER": "alice",
    "LOGNAME": "alice",
    "SHELL": "/bin/sh",
    "UDI_IMAGE": "app:1",
    "UDI_IMAGE_ID": IMAGE,
}
SHOW = ("/usr/bin/env", "-0")
NAMES = st.binary(min_size=1, max_size=12).map(lambda raw: raw.replace(b"\0", b"n").replace(b"=", b"-"))
VALUES = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"\n"))


class Job:
    """A job whose root is this machine's, with the file that `udi-run` reads there."""

    def __init__(self, directory: Path) -> None:
        self.data, self.program = directory / "run", directory / "udi-run"
        udi_run.program_that_reads(self.data, self.program)
        self.has()

    def has(self, site: str = "", user: Account = ALICE, programs: str = "", **facts: object) -> None:
        """Its image's facts, and the site's table `[environment]`."""
        values: dict[str, object] = {"id": IMAGE, "format": "squashfs", "size": 1, "sha256": "0" * 64}
        table = parse(f'[store]\npath = "/x"\n[environment]\n{site}', "udi.toml").environment
        text = run_data(Facts(**(values | facts)), table, user, "app:1", programs)  # type: ignore[arg-type]
        self.data.write_bytes(text.encode("utf-8", "surrogateescape"))

    def run(
        self, *words: str | bytes, env: Mapping[bytes, bytes] | None = None, cwd: str | Path = "/"
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [self.program, *words], env=dict(env or {}), cwd=cwd, capture_output=True, check=False, timeout=60
        )

    def environment(self, *words: str | bytes, env: Mapping[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        """What a program gets, without what the job itself always has."""
        done = self.run(*words, *SHOW, env=env)
        assert (done.returncode, done.stderr) == (0, b"")
        found = dict(line.split(b"=", 1) for line in done.stdout.split(b"\0")[:-1])
        own = {name.encode(): value.encode() for name, value in (OWN | {"PATH": DOCKER_PATH, "PWD": "/"}).items()}
        return {name: value for name, value in found.items() if own.get(name) != value}

    def fails(self, *words: str, env: Mapping[bytes, bytes] | None = None, cwd: str | Path = "/") -> tuple[int, str]:
        """Exit code and the one line."""
        done = self.run(*words, env=env, cwd=cwd)
        assert done.stdout == b"" and done.stderr.startswith(b"udi-run: ") and done.stderr.count(b"\n") == 1
        return done.returncode, done.stderr.decode()[9:-1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job(tmp_path_factory.mktemp("udi-run"))


@pytest.fixture
def job(built: Job) -> Job:
    built.has()
    return built


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    tmp_path.chmod(0o755)
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


# -- the environment ------------------------------------------------------------------------------------------------


def texts(pairs: Mapping[bytes, bytes]) -> tuple[str, ...]:
    return tuple((name + b"=" + value).decode("utf-8", "surrogateescape") for name, value in pairs.items())


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(image=st.dictionaries(NAMES, VALUES, max_size=6), own=st.dictionaries(NAMES, VALUES, max_size=6))
@example(image={b"UID": b"1000", b"EUID": b"0", b"PPID": b"1", b"BASHOPTS": b"", b"SHELLOPTS": b"x"}, own={})
@example(image={b"spring.datasource.url": b"jdbc:x", b"my-name": b"$(id)`id`'\"\\\n", b"lower": b"\xff\xfe"}, own={})
@example(image={b"IFS": b"/", b"ENV": b"/x", b"BASH_ENV": b"/x", b"LD_PRELOAD": b""}, own={b"IFS": b":", b"A": b"\xff"})
def test_every_name_and_value_passes_as_execve_would_pass_it(
    job: Job, image: dict[bytes, bytes], own: dict[bytes, bytes]
) -> None:
    for one in (image, own):
        for name in (*OWN, "PATH", "PWD"):
            one.pop(name.encode(), None)
    job.has(env=texts(image))
    assert job.environment(env=own) == own | image


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    own=st.dictionaries(NAMES, VALUES, max_size=4), said=st.dictionaries(NAMES, VALUES, max_size=4), clear=st.booleans()
)
def test_what_the_user_says_passes_as_well(
    job: Job, own: dict[bytes, bytes], said: dict[bytes, bytes], clear: bool
) -> None:
    for one in (own, said):
        for name in (*OWN, "PATH", "PWD"):
            one.pop(name.encode(), None)
    words = [word for name, value in said.items() for word in (b"--env", name + b"=" + value)]
    expected = ({} if clear else own) | said
    assert job.environment(*(["--clear-env"] if clear else []), *words, env=own) == expected
    removed = [word for name in said for word in (b"--unset", name)]
    assert job.environment(*words, *removed, env=own) == {k: v for k, v in own.items() if k not in said}


def test_home_user_and_shell_are_the_user_s(job: Job) -> None:
    job.has(env=("HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/false", "PWD=/x", "UDI_IMAGE=y"))
    assert job.environment(env={b"HOME": b"/job", b"SHELL": b"/x"}) == {}
    assert job.environment("--env", "HOME=/mine", "--unset", "USER") == {b"HOME": b"/mine"}
    assert b"USER=" not in job.run("--unset", "USER", *SHOW).stdout.replace(b"LOGNAME", b"")


def test_a_shell_that_the_image_lacks_is_bin_sh(job: Job) -> None:
    for shell, expected in (("/no/tcsh", b"/bin/sh"), ("/bin/bash", b"/bin/bash")):
        job.has(user=Account("alice", 1001, 1001, (1001,), "/", shell))
        assert b"\0SHELL=" + expected + b"\0" in b"\0" + job.run(*SHOW).stdout


def test_path_is_the_image_s_and_docker_s_default_where_it_has_none(job: Job) -> None:
    own = {b"PATH": b"/opt/modules/bin"}
    assert job.environment(env=own) == {}
    job.has(env=("PATH=/app:/bin",))
    assert job.environment(env=own) == {b"PATH": b"/app:/bin"}
    job.has(env=("PATH=/app:/bin",), programs="/opt/udi/bin")
    assert job.environment(env=own) == {b"PATH": b"/opt/udi/bin:/app:/bin"}
    job.has(programs="/opt/udi/bin")
    assert job.environment() == {b"PATH": f"/opt/udi/bin:{DOCKER_PATH}".encode()}


def test_texts_of_an_image_that_name_no_variable_are_passed_over_and_the_last_of_a_name_counts(job: Job) -> None:
    job.has(env=("NOTHING", "=x", "", "A=1", "A=2", "B="))
    assert job.environment() == {b"A": b"2", b"B": b""}


def test_the_site_s_environment_is_over_the_image_s_and_under_the_user_s(job: Job) -> None:
    site = 'set = { MPI = "cray", LIST = "/set" }\nunset = ["DEBUG", "CLEARED"]\n'
    site += 'prepend = { LIST = "/first:/second", CLEARED = "/c" }\nappend = { LIST = "/last" }'
    job.has(site, env=("MPI=image", "DEBUG=1", "CLEARED=/x"))
    expected = {b"MPI": b"cray", b"LIST": b"/first:/second:/set:/last", b"CLEARED": b"/c"}
    assert job.environment(env={b"MPI": b"job", b"DEBUG": b"2"}) == expected
    assert job.environment("--env", "MPI=mine", "--unset=LIST", "--env", "DEBUG", env={b"DEBUG": b"2"}) == {
        b"MPI": b"mine", b"DEBUG": b"2", b"CLEARED": b"/c"
    }  # fmt: skip


@pytest.mark.parametrize("before", [None, b"", b"/image", b"/a:/b"])
def test_joining_a_list_never_makes_an_empty_element(job: Job, before: bytes | None) -> None:
    """An empty element of PATH or LD_LIBRARY_PATH is the current directory."""
    site = 'prepend = { LD_LIBRARY_PATH = "/opt/cray/lib" }\nappend = { LD_LIBRARY_PATH = "/opt/late" }'
    for env, own in ((() if before is None else texts({b"LD_LIBRARY_PATH": before}), {}), ((), before)):
        job.has(site, env=env)
        inherited = {b"LD_LIBRARY_PATH": own} if isinstance(own, bytes) else {}
        middle = b":" + before if before else b""
        assert job.environment(env=inherited) == {b"LD_LIBRARY_PATH": b"/opt/cray/lib" + middle + b":/opt/late"}


def test_a_hundred_thousand_variables_take_no_time(job: Job) -> None:
    """Linear: with one look at all before each, this would take minutes."""
    job.has(env=tuple(f"V{number}=" for number in range(100_000)))
    assert job.run("--clear-env", *(f"--unset=V{number}" for number in range(0, 100_000, 2)), *SHOW).returncode == 0


# -- the working directory --------------------------------------------------------------------------------------------


def test_workdir_as_docker_reads_it(job: Job, directory: Path) -> None:
    (directory / "link").symlink_to(directory)
    cases = {"": "/", "/": "/", str(directory): str(directory), str(directory)[1:]: str(directory)}
    cases |= {f"{directory}/none/../link/": str(directory), f"//{directory}//": str(directory), "../..": "/"}
    for workdir, expected in cases.items():
        job.has(workdir=workdir)
        done = job.run("/bin/sh", "-c", 'echo "$PWD"; pwd -P', env={b"PWD": b"/elsewhere"}, cwd="/usr")
        assert (done.stdout.decode().split(), done.stderr) == ([expected, expected], b""), workdir


def test_a_workdir_that_cannot_be_entered_costs_a_warning(job: Job, directory: Path) -> None:
    (directory / "file").write_text("")
    cases = {"/no/such\x1b[31m": "No such file or directory", f"{directory}/file": "Not a directory"}
    cases |= {"/" + "x" * 300: "Filename too long", f"{directory}/file/below": "Not a directory"}
    for workdir, reason in cases.items():
        job.has(workdir=workdir)
        done = job.run("/bin/sh", "-c", "pwd -P; echo $PWD", cwd=directory)
        assert done.stdout.decode().split() == [str(directory)] * 2
        shown = workdir.replace("\x1b", "?")
        line = f"udi-run: warning: the image's working directory {shown} cannot be entered ({reason}); starting in "
        assert done.stderr.decode() == f"{line}{directory}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: becomes another user")
def test_a_closed_workdir_costs_a_warning(job: Job, directory: Path) -> None:
    (directory / "closed").mkdir(mode=0o700)
    job.has(workdir=f"{directory}/closed")
    shutil.copy(job.program, directory / "udi-run")
    words: list[str | Path] = [directory / "udi-run", "/bin/pwd"]
    for path in (job.program, directory):
        for parent in path.parents:
            if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    done = subprocess.run(words, user=65534, group=65534, cwd="/usr", capture_output=True, text=True, env={})
    assert (done.returncode, done.stdout) == (0, "/usr\n")
    assert "closed cannot be entered (Permission denied); starting in /usr\n" in done.stderr


def test_the_job_s_directory(job: Job, directory: Path) -> None:
    """Where `udi-run` was started; where that is `/`, since a launcher could not enter it, PWD, then HOME, then `/`."""
    job.has(workdir="/no/such", user=Account("alice", 1, 1, (1,), str(directory / "home"), "/bin/sh"))
    assert job.run("/bin/pwd", env={b"PWD": bytes(directory)}).stdout == bytes(directory) + b"\n"
    assert job.run("/bin/pwd", env={b"PWD": b"/gone"}).stdout == b"/\n"
    (directory / "home").mkdir()
    for pwd in (b"/gone", b"", b"relative"):
        assert job.run("/bin/pwd", env={b"PWD": pwd}).stdout == bytes(directory / "home") + b"\n"
    gone = directory / "gone"
    gone.mkdir()
    words = f"cd {gone}; rmdir {gone}; exec {job.program} /bin/pwd"
    assert subprocess.run(["/bin/sh", "-c", words], stdout=subprocess.PIPE, env={}).stdout.endswith(b"/home\n")


def test_the_user_s_workdir(job: Job, directory: Path) -> None:
    (directory / "below").mkdir()
    job.has(workdir="/usr")
    assert job.run("--workdir", "/var/..", "/bin/pwd").stdout == b"/\n"
    assert job.run("--workdir=.", "/bin/pwd", cwd=directory).stdout == bytes(directory) + b"\n"
    assert job.run("--workdir", "below", "/bin/pwd", cwd=directory).stdout == bytes(directory) + b"/below\n"
    assert job.fails("--workdir", "/no/such", "/bin/pwd") == (125, "--workdir /no/such: No such file or directory")


# -- what is run ----------------------------------------------------------------------------------------------------

ECHO = ("/usr/bin/printf", "[%s]")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "[own][a b]"),
        (["--"], "[own][a b]"),
        (["/bin/echo", "-n", "x"], "x"),
        (["--", "/bin/echo", "-n", "--args"], "--args"),
        (["--args"], "[]"),
        (["--args", "--", "--env", "", "x y"], "[--env][][x y]"),
        (["--entrypoint", "/bin/echo", "--", "-n", "x"], "x"),
        (["--entrypoint=echo", "--args", "--", "-n", "x"], "x"),
        (["--entrypoint", "", "echo", "-n", "x"], "x"),
        (["--env", "A=1", "sh", "-c", 'printf "%s" "$A"'], "1"),
    ],
)
def test_entry_point_command_and_arguments(job: Job, words: Sequence[str], expected: str) -> None:
    job.has(entrypoint=ECHO, cmd=("own", "a b"))
    done = job.run(*words)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, expected, b"")


def test_an_image_with_only_a_command_and_one_with_nothing(job: Job) -> None:
    job.has(cmd=("echo", "from", "cmd"))
    assert job.run().stdout == b"from cmd\n"
    assert job.fails("--args", "x") == (125, "--args: this image has no entry point; name a command instead")
    assert job.fails("--entrypoint", "") == (125, "no entry point; name a command")
    job.has()
    assert job.fails() == (125, "this image has no entry point; name a command")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--wrong"], "unknown option --wrong (-- ends the options); see udi-run --help"),
        (["-e", "A=1"], "unknown option -e (-- ends the options); see udi-run --help"),
        (["--environment=A"], "unknown option --environment=A (-- ends the options); see udi-run --help"),
        (["--env"], "option --env needs a value; see udi-run --help"),
        (["--workdir"], "option --workdir needs a value; see udi-run --help"),
        (["--env", "=x"], "--env '=x' does not name a variable; see udi-run --help"),
        (["--unset", "A=x"], "--unset 'A=x' does not name a variable; see udi-run --help"),
        (["--unset="], "--unset '' does not name a variable; see udi-run --help"),
        (["--workdir", "", "true"], "--workdir : No such file or directory"),
    ],
)
def test_wrong_options_are_udi_run_s_own_failure(job: Job, words: Sequence[str], message: str) -> None:
    assert job.fails(*words) == (125, message)


def test_exit_codes_and_whose_fault(job: Job, directory: Path) -> None:
    for name, content, mode in (
        ("plain", "echo x\n", 0o755),
        ("closed", "#!/bin/sh\n", 0o644),
        ("orphan", "#!/no/bash\n", 0o755),
        ("loop", "#!./loop\n", 0o755),
        ("good", "#!/bin/sh\nexit 7\n", 0o755),
    ):
        (directory / name).write_text(content)
        (directory / name).chmod(mode)
    job.has(env=(f"PATH=/no:{directory}:/bin",), entrypoint=("/no/entry",))
    assert job.run("good").returncode == 7
    path = f"/no:{directory}:/bin"
    assert job.fails() == (127, "the image's entry point: /no/entry: not found in the image")
    assert job.fails("absent") == (127, f"the command: 'absent' was not found in PATH ({path})")
    assert job.fails("") == (127, f"the command: '' was not found in PATH ({path})")
    assert job.fails("/bin/sh/x") == (127, "the command: /bin/sh/x: not found in the image")
    assert job.fails("--entrypoint", "absent")[1].startswith("--entrypoint: 'absent' was not found")
    reason = "has no #! line and is not a program for this machine"
    assert job.fails("plain") == (126, f"the command: {directory}/plain {reason}")
    assert job.fails(str(directory)) == (126, f"the command: {directory} is a directory")
    assert job.fails("closed") == (126, f"the command: {directory}/closed: Permission denied")
    reason = "exists, but the image lacks the interpreter or loader that it names"
    for name in ("orphan", f"{directory}/orphan"):
        assert job.fails(name) == (126, f"the command: {directory}/orphan {reason}")
    assert job.fails("loop")[0] == 126


def test_the_search_goes_on_past_what_cannot_be_executed(job: Job, directory: Path) -> None:
    (directory / "first/true").mkdir(parents=True)
    (directory / "second").mkdir()
    (directory / "second/true").write_text("")
    job.has(env=(f"PATH={directory}/first:{directory}/second:/bin/sh:/bin",))
    assert job.run("true").returncode == 0
    assert job.run("--unset", "PATH", "true").returncode == 0


def test_more_than_the_kernel_takes_is_named(job: Job) -> None:
    job.has(env=("BIG=" + "x" * (1 << 17),))
    assert job.fails("true")[1].startswith(
        "the command: the variable BIG has 131076 bytes, and the kernel takes at most"
    )
    assert job.run("--unset", "BIG", "true").returncode == 0
    job.has(env=tuple(f"V{number}={'x' * 10_000}" for number in range(190)), cmd=("/bin/true",))
    long = ["x" * 100_000] * 10
    code, line = job.fails("true", *long)
    assert code == 126 and "arguments and environment have" in line


def test_help_and_version(job: Job) -> None:
    done = job.run("--help")
    assert done.returncode == 0 and done.stderr == b""
    for option in ("args", "entrypoint", "workdir", "env", "unset", "clear-env", "version"):
        assert f"--{option}".encode() in done.stdout
    assert job.run("--version").stdout.startswith(b"udi-run, version 0.")
    with open("/dev/full", "wb") as full:
        code = subprocess.run([job.program, "--help"], stdout=full, stderr=subprocess.PIPE)
    assert (code.returncode, code.stderr) == (125, b"udi-run: cannot write to stdout: No space left on device\n")


def test_a_session_of_the_private_sshd_is_a_shell(job: Job) -> None:
    job.has(env=("GREETING=hi",))
    command = {b"SSH_ORIGINAL_COMMAND": b'echo "$GREETING" $0 $SHELL'}
    assert job.run("--session", env=command).stdout == b"hi /bin/sh /bin/sh\n"
    login = subprocess.run([job.program, "--session"], input=b"echo $GREETING; exit 3", stdout=subprocess.PIPE, env={})
    assert (login.returncode, login.stdout) == (3, b"hi\n")


# -- the file of the job ---------------------------------------------------------------------------------------------


def test_a_file_cut_or_changed_anywhere_is_the_site_s_fault(job: Job) -> None:
    job.has('append = { A = "/x" }', env=("A=1",), entrypoint=("/bin/true",), workdir="/")
    good = job.data.read_bytes()
    for end in range(len(good)):
        job.data.write_bytes(good[:end])
        code, line = job.fails("/bin/true")
        assert code == 125 and "fault of the site" in line, good[:end]
    for wrong in (good + b"x\0", good.replace(b"udi-run 1", b"udi-run 2"), good.replace(b"append A", b"appent A"), b""):
        job.data.write_bytes(wrong)
        assert job.fails("/bin/true")[0] == 125
    for wrong in (b"set A", b"set =x", b"set ", b"prepend A", b"unset ", b"shell ", b"set"):
        job.data.write_bytes(good.replace(b"end\0", wrong + b"\0end\0"))
        assert job.fails("/bin/true")[0] == 125, wrong
    job.data.unlink()
    assert job.fails("/bin/true") == (125, f"{job.data}: No such file or directory; this is a fault of the site")
    job.data.mkdir()
    assert job.fails("/bin/true")[0] == 125
    job.data.rmdir()
    job.data.write_bytes(good)
    assert job.run("/bin/true").returncode == 0
