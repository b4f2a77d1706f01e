"""The SPANK plugin's own parts, in a test program with the sanitizers, without Slurm: texts that it reads, what becomes
of a step, the environment of a task, and the conversation with `udi-slurm-submit`."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.notes import Note
from tests import udi_run
from udi import rundata
from udi.accounts import Account
from udi.config import parse
from udi.facts import Facts
from udi.reference import ImageReference
from udiroot import mountinfo

ROOT = Path(__file__).parents[2]
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
ID = "ab" * 32
READY = Note(1001, "ready", 0, "/var/udi/7", "udi:7:1001:made", "debian:12", "debian:12", ID)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
BYTES = st.binary(max_size=20).map(lambda raw: raw.replace(b"\0", b"0"))


@functools.cache
def driver() -> Path:
    if not shutil.which("gcc") or not Path("/usr/include/slurm/spank.h").exists():
        pytest.skip("needs gcc and Slurm's headers, which make setup installs")
    program = Path(tempfile.mkdtemp(prefix="spank-")) / "driver"
    source = ROOT / "tests/unit/spank_driver.c"
    flags = ("-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Wshadow", "-Werror", *SANITIZERS)
    subprocess.run(["gcc", *flags, "-o", program, source], check=True)
    return program


@pytest.fixture(scope="module", autouse=True)
def _driver_goes() -> object:
    yield
    if driver.cache_info().currsize:
        shutil.rmtree(driver().parent)


def run(
    *words: str | Path, text: bytes = b"", env: Mapping[Any, Any] | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = [str(driver()), *map(str, words)]
    done = subprocess.run(command, input=text, env=dict(env or {}), capture_output=True, timeout=60)
    assert b"Sanitizer" not in done.stderr and b"runtime error" not in done.stderr, done.stderr.decode()
    return done


def read_note(text: bytes) -> dict[str, bytes] | None:
    """The fields of a note as the plugin reads it; None where it refuses the note."""
    output = run("note", text=text).stdout.decode()
    if output.startswith("wrong: "):
        return None
    pairs = (line.split(" ") for line in output.splitlines())
    return {name: bytes.fromhex(value) for name, value in pairs}


def fields(note: Note) -> dict[str, bytes]:
    names = ("uid", "state", "root", "label", "image", "given", "id", "why", "start")
    return {name: str(getattr(note, name)).encode("utf-8", "surrogateescape") for name in names}


# The note.


@settings(max_examples=60, deadline=None)
@given(image=TEXTS, given_text=TEXTS, why=TEXTS, state=st.sampled_from(["wanted", "ready", "failed"]))
def test_every_note_that_a_hook_writes_is_read(image: str, given_text: str, why: str, state: str) -> None:
    note = Note(1001, state, 3, "/var/udi/7", "udi:7:1001:made", image, given_text, ID, why)  # type: ignore[arg-type]
    complete = {"wanted": True, "ready": image and given_text, "failed": why}[state]
    assert read_note(note.text().encode()) == (fields(note) if complete else None)


def test_a_note_cut_anywhere_is_refused() -> None:
    text = READY.text().encode()
    assert read_note(text) == fields(READY)
    for length in range(len(text)):
        assert read_note(text[:length]) is None, text[:length]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_changed_note_is_refused_or_read_as_the_hooks_read_it(data: st.DataObject) -> None:
    text = bytearray(READY.text().encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    seen = read_note(bytes(text))
    hooks = Note.parse(bytes(text))
    if seen is None:
        return
    if hooks is None:  # a number that is none, which is then no job's
        assert not (seen["uid"].isdigit() and seen["start"].isdigit())
    else:
        assert fields(hooks) == {**seen, "uid": str(hooks.uid).encode(), "start": str(hooks.start).encode()}


@pytest.mark.parametrize(
    "line",
    [
        "frob 1",
        "uid 5",
        "state",
        "why %2",
        "why %zz",
        "why %00",
        "why a b",
        "why " + "a" * 4096,
        "end",
        "udi-note 1",
        "",
    ],
)
def test_a_line_that_is_none(line: str) -> None:
    text = READY.text()
    assert read_note(text.replace("given", f"{line}\ngiven").encode()) is None


def test_what_follows_the_end_is_refused() -> None:
    assert read_note(READY.text().encode() + b"uid 0\n") is None
    assert read_note(READY.text().replace("end\n", "end x\n").encode()) is None


# What becomes of a step.


def verdict(
    note: Note | None,
    asked: str | None = None,
    *,
    job: int = 7,
    uid: int = 1001,
    kind: str = "step",
    batch: str = "inside",
) -> str:
    words = ["verdict", batch, str(job), str(uid), kind, *([asked] if asked is not None else [])]
    done = run(*words, text=note.text().encode() if note else b"", env={"SLURMD_NODENAME": "n1"})
    assert done.returncode == 0
    return done.stdout.decode().strip()


@pytest.mark.parametrize("kind", ["step", "batch"])
def test_without_a_note_nothing_that_was_asked_for_starts(kind: str) -> None:
    assert verdict(None, kind=kind) == "stay"
    assert verdict(None, "none", kind=kind) == "stay"
    assert verdict(None, "debian:12", kind=kind) == (
        "image 'debian:12' was asked for, but node n1 has prepared none for job 7"
    )
    assert "was asked for" in verdict(None, "", kind=kind)


def test_with_a_note_whatever_the_options_say() -> None:
    assert verdict(READY) == "enter"
    assert verdict(READY, "none") == "stay"
    assert verdict(READY, "alpine") == "a step runs in the image of its job, debian:12, and not in 'alpine'"
    assert verdict(READY, kind="batch") == "enter"
    assert verdict(READY, kind="batch", batch="outside") == "stay"
    assert verdict(READY, batch="outside") == "enter"


def test_a_note_that_is_not_of_this_job_or_user() -> None:
    for changed in (
        {"uid": 1002},
        {"label": "udi:8:1001:made"},
        {"label": "udi:7:1002:made"},
        {"label": "udi:77:1001:made"},
    ):
        assert "is another job's; this is a fault of the site" in verdict(Note(**(vars(READY) | changed)))
    assert "is another job's" in verdict(READY, job=77)
    assert "is another job's" in verdict(READY, uid=100)


@pytest.mark.parametrize("kind", ["step", "batch"])
@pytest.mark.parametrize("batch", ["inside", "outside", "alps"])
def test_a_root_that_failed_or_is_not_ready(kind: str, batch: str) -> None:
    failed = Note(1001, "failed", why="image debian:13 is not in the store")
    assert verdict(failed, kind=kind, batch=batch) == "image debian:13 is not in the store"
    assert "is not ready on node n1" in verdict(Note(1001, "wanted"), kind=kind, batch=batch)
    assert verdict(failed, "none", kind=kind, batch=batch) == "stay"


@pytest.mark.parametrize(
    "asked", ["debian", "debian:latest", "docker:debian", "docker://debian", "docker:debian:latest", f"id:{ID}", "deb"]
)
def test_every_spelling_of_the_jobs_image(asked: str) -> None:
    note = Note(1001, "ready", 0, "/r/7", "udi:7:1001:made", "debian:latest", "deb", ID)
    assert verdict(note, asked) == "enter"


@pytest.mark.parametrize(
    "asked", ["id:", "id:" + "cd" * 32, "debian:1", "debian@sha256:" + "0" * 64, "x/debian", "DEB", ""]
)
def test_other_images(asked: str) -> None:
    for identity in ("", ID):
        note = Note(1001, "ready", 0, "/r/7", "udi:7:1001:made", "debian:latest", "deb", identity)
        assert "and not in" in verdict(note, asked)


@settings(max_examples=60, deadline=None)
@given(
    st.from_regex(
        r"(docker:(//)?)?([a-z]{1,3}\.[a-z](:[0-9]{1,3})?/)?[a-z]{1,2}(/[a-z]{1,2})?(:[a-z0-9]{1,2})?", fullmatch=True
    )
)
@example("docker:12")
@example("h.x:5/a")
def test_names_are_compared_as_the_hooks_do(asked: str) -> None:
    """A step is never refused for naming its job's image otherwise than the job did."""
    image = str(ImageReference.parse(asked))
    assert verdict(Note(1001, "ready", 0, "/r/7", "udi:7:1001:made", image, "x", ID), asked) == "enter"


@pytest.mark.parametrize("lost", [{"SLURM_SPANK_UDI_IMAGE": "debian:12"}, {}])
def test_what_slurm_keeps_of_a_request_counts_where_the_option_was_lost(tmp_path: Path, lost: dict[str, str]) -> None:
    done = run("step", tmp_path, env={**lost, "SLURMD_NODENAME": "n1"}).stdout.decode().strip()
    assert done == ("image 'debian:12' was asked for, but node n1 has prepared none for job 7" if lost else "stay")


# The note as a file.


def step(notes: Path, *asked: str) -> str:
    return run("step", notes, *asked).stdout.decode().strip()


def own_note(directory: Path) -> Path:
    path = directory / "7"
    uid = os.getuid()
    path.write_text(Note(uid, "ready", 0, "/var/udi/7", f"udi:7:{uid}:made", "debian:12", "debian:12", ID).text())
    path.chmod(0o644)
    return path


def test_a_note_is_believed_as_root_left_it(tmp_path: Path) -> None:
    assert step(tmp_path) == step(tmp_path / "none") == "stay"
    note = own_note(tmp_path)
    assert step(tmp_path) == "enter"
    for mode in (0o664, 0o646, 0o666):
        note.chmod(mode)
        assert step(tmp_path).endswith("7: Operation not permitted; this is a fault of the site")
    note.chmod(0o644)
    note.rename(tmp_path / "true")
    note.symlink_to("true")
    assert "this is a fault of the site" in step(tmp_path)
    note.unlink()
    os.mkfifo(note)
    assert "this is a fault of the site" in step(tmp_path)
    note.unlink()
    note.mkdir()
    assert "this is a fault of the site" in step(tmp_path)
    note.rmdir()
    note.write_text("")
    assert "this is a fault of the site" in step(tmp_path)
    note.write_bytes(b"a" * (65 << 10))
    assert "this is a fault of the site" in step(tmp_path)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to make a file that is another user's")
def test_a_note_of_another_owner(tmp_path: Path) -> None:
    os.chown(own_note(tmp_path), 1001, 0)
    assert "7: Operation not permitted" in step(tmp_path)


def test_a_job_without_an_image_costs_one_open_that_finds_nothing(tmp_path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("needs strace, which make setup installs")
    trace = tmp_path / "trace"
    environment = {"ASAN_OPTIONS": "detect_leaks=0"}
    command = ["strace", "-o", str(trace), "-e", "trace=file", str(driver()), "step", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert done.stdout == b"stay\n"
    calls = [line for line in trace.read_text().splitlines() if str(tmp_path) in line]
    calls = [call for call in calls if not call.startswith("execve")]
    assert [call.split("(")[0] for call in calls] == ["openat"], calls
    assert "ENOENT" in calls[0]


# The kernel's table.


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from(["a", "udi:7:1:made", "x-y", "-", "a\\040b"])), max_size=8),
    st.integers(1, 40),
)
def test_the_source_of_a_mount(mounts: Sequence[tuple[int, str]], number: int) -> None:
    lines = [
        f"{own} 1 0:{at} / /mnt/{own} rw,relatime {'shared:1 ' * (at % 2)}- tmpfs {source} rw,size=1k"
        for at, (own, source) in enumerate(mounts)
    ]
    sources = [line.split(" - ", 1)[1].split(" ")[1] for line in lines if mountinfo.parse(line).number == number]
    table = "".join(line + "\n" for line in lines).encode()
    assert run("source", str(number), text=table).stdout.decode().strip() == (sources[0] if sources else "")


def test_the_table_of_this_machine() -> None:
    table = Path("/proc/self/mountinfo").read_text()
    for mount in map(mountinfo.parse, table.splitlines()[:20]):
        found = run("source", str(mount.number), text=table.encode()).stdout.decode()
        assert found == ("" if mount.kind.startswith("fuse") else mount.source) + "\n"


def test_a_source_that_a_user_chose() -> None:
    """fusermount(1) takes it from whoever mounts."""
    line = "7 1 0:7 / /tmp/mine rw,nosuid - {} udi:7:1000:made rw\n"
    found = {kind: run("source", "7", text=line.format(kind).encode()).stdout for kind in ("tmpfs", "fuse", "fuse.x")}
    assert found == {"tmpfs": b"udi:7:1000:made\n", "fuse": b"\n", "fuse.x": b"\n"}


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"\n",
        b"7\n",
        b"7 - \n",
        b"7 - tmpfs\n",
        b"x 7 - tmpfs udi:7\n",
        b"77 1 - tmpfs udi:7 rw\n",
        b"7 - tmpfs " + b"a" * 9000,
    ],
)
def test_lines_that_are_none(table: bytes) -> None:
    assert len(run("source", "7", text=table).stdout) in (1, 4096)


# The environment, for which udi-run itself is the oracle.


def data_of(env: Sequence[str], site: str, programs: str = "") -> bytes:
    facts = Facts(
        id=ID, format="squashfs", size=1, sha256="0" * 64, env=tuple(env), workdir="/", entrypoint=("a b",), cmd=("",)
    )
    table = parse(f'[store]\npath = "/x"\n[environment]\n{site}', "udi.toml").environment
    user = Account("alice", 1001, 1001, (1001,), "/home/alice", "/bin/sh")
    return rundata.run_data(facts, table, user, "app:1", programs).encode("utf-8", "surrogateescape")


@functools.cache
def udi_run_that_reads(data: Path) -> Path:
    program = data.with_name("udi-run")
    udi_run.program_that_reads(data, program)
    return program


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "run"


def environments(data: Path, inherited: Mapping[bytes, bytes]) -> tuple[set[bytes], set[bytes]]:
    """What a task gets by the plugin, and what udi-run gives it."""
    plugin = run("environment", data, env=inherited)
    assert plugin.returncode == 0, plugin.stderr
    command = [str(udi_run_that_reads(data)), "--workdir", ".", "/usr/bin/env", "-0"]
    oracle = subprocess.run(command, env=dict(inherited), capture_output=True, check=True)
    return set(plugin.stdout.split(b"\0")), set(oracle.stdout.split(b"\0"))


NAMES = st.sampled_from(["A", "PATH", "LD_LIBRARY_PATH", "SHELL", "HOME", "EMPTY", "P"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(NAMES, st.text("ab:=/ é", max_size=5)), max_size=5),
    st.dictionaries(NAMES, BYTES, max_size=5),
    st.dictionaries(NAMES, st.text("ab:/", min_size=1, max_size=4).map(lambda text: "/" + text), max_size=3),
    st.sampled_from(["set", "prepend", "append"]),
    st.sampled_from(["", "/opt/udi/bin"]),
)
def test_a_task_gets_what_udi_run_would_give_it(
    data_file: Path,
    env: list[tuple[str, str]],
    inherited: dict[str, bytes],
    site: dict[str, str],
    kind: str,
    programs: str,
) -> None:
    lists = "".join(
        f'{name} = "/x/{value.replace(":", "").strip("/")}"\n'
        for name, value in site.items()
        if name not in ("HOME", "SHELL", "P")
    )
    data_file.write_bytes(
        data_of([f"{name}={value}" for name, value in env], f'unset = ["P"]\n[environment.{kind}]\n{lists}', programs)
    )
    plugin, oracle = environments(data_file, {name.encode(): value for name, value in inherited.items()})
    assert plugin == oracle


def test_what_slurm_and_its_mpi_say_to_a_task_is_kept(data_file: Path) -> None:
    theirs = {b"SLURM_PROCID": b"3", b"PMI_FD": b"9", b"PMIX_RANK": b"3", b"CUDA_VISIBLE_DEVICES": b"1"}
    env = ["SLURM_PROCID=0", "PMI_FD=0", "PMIX_RANK=0", "CUDA_VISIBLE_DEVICES=all", "PMIX_MCA_gds=hash", "A=1"]
    data_file.write_bytes(data_of(env, 'unset = ["SLURM_PROCID"]\n'))
    plugin, _ = environments(data_file, theirs)
    assert {b"SLURM_PROCID=3", b"PMI_FD=9", b"PMIX_RANK=3", b"CUDA_VISIBLE_DEVICES=1"} < plugin
    assert {b"PMIX_MCA_gds=hash", b"A=1"} < plugin


def test_a_file_of_the_environment_that_is_cut_or_changed(data_file: Path, tmp_path: Path) -> None:
    data = data_of(["A=1"], "")
    path = tmp_path / "run"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        done = run("environment", path)
        if length < len(data) - 1:  # without its last NUL it is complete
            assert done.returncode == 1, data[:length]
            assert b"not what this plugin understands" in done.stderr
    for record in (b"frob A=1", b"set A", b"set =1", b"set", b"prepend A", b"", b"end", b"udi-run 2"):
        path.write_bytes(data.replace(b"set A=1\0", record + b"\0"))
        assert run("environment", path).returncode == 1, record
    path.unlink()
    assert b"No such file" in run("environment", path).stderr


# Submission.


class Submit:
    """A stand-in for udi-slurm-submit, whose arguments and environment are seen."""

    def __init__(self, directory: Path) -> None:
        self.program, self.seen = directory / "udi-slurm-submit", directory / "seen"
        self.answers("image debian:12\nid -\nvolumes /a:/b\nmodules mpich\nrun image=x\nend\n")

    def answers(self, text: str, more: str = "") -> None:
        lines = [
            "#!/bin/sh",
            f'printf "%s\\n" "$0" "$@" > {self.seen}',
            f"ls -l /proc/self/fd | grep -v /proc/ | sed 's/.*[0-9] \\([0-9]* -> .*\\)/\\1/' > {self.seen}.fds",
            more,
            f"printf '%s' '{text}'",
        ]
        self.program.write_text("\n".join(lines) + "\n")
        self.program.chmod(0o755)

    def run(
        self, program: str, *options: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        self.seen.unlink(missing_ok=True)
        return run(
            "submit", program, f"submit={self.program}", *options, env={"PATH": os.environ["PATH"], **(env or {})}
        )

    def words(self) -> list[str]:
        return self.seen.read_text().splitlines()[1:] if self.seen.exists() else []


@pytest.fixture
def submit(tmp_path: Path) -> Submit:
    return Submit(tmp_path)


def test_what_prolog_is_told(submit: Submit) -> None:
    done = submit.run("sbatch", "--image=debian:12", "--volume=/a:/b")
    assert (done.returncode, done.stderr) == (0, b"")
    assert submit.words() == ["--image", "debian:12", "--volumes", "/a:/b"]
    assert done.stdout.decode().splitlines() == [
        "UDI_IMAGE=debian:12",
        "UDI_ID=-",
        "UDI_VOLUMES=/a:/b",
        "UDI_MODULES=mpich",
        "UDI_RUN=image=x",
        "UDI_GIVEN_VOLUMES=/a:/b",
        "UDI_GIVEN_MODULES=",
    ]
    open_files = (submit.seen.with_name("seen.fds")).read_text().splitlines()
    assert [line.split(" ")[0] for line in open_files if line] == ["0", "2"] or len(open_files) <= 4
    assert "0 -> /dev/null" in open_files


def test_a_job_without_an_image_starts_no_program(submit: Submit) -> None:
    for options in ([], ["--image=none"]):
        done = submit.run("sbatch", *options)
        assert (done.returncode, done.stdout, done.stderr, submit.words()) == (0, b"", b"", [])


def test_volumes_given_one_by_one(submit: Submit) -> None:
    submit.run("salloc", "--image=debian", "--volume=/a:/b", "--imagevolume=/c:/d;/e:/f", "--imagevolume=/c:/d;/e:/f")
    assert submit.words()[-1].startswith("/a:/b;/c:/d;/e:/f")


def test_modules_given_one_by_one(submit: Submit) -> None:
    done = submit.run("sbatch", "--image=debian", "--module=mpich", "--volume=/a:/b", "--module=gpu;x")
    assert submit.words() == ["--image", "debian", "--volumes", "/a:/b", "--modules", "mpich;gpu;x"]
    assert done.stdout.endswith(b"UDI_GIVEN_VOLUMES=/a:/b\nUDI_GIVEN_MODULES=mpich;gpu;x\n")


@pytest.mark.parametrize("what", ["volume", "module"])
def test_lists_without_an_image(submit: Submit, what: str) -> None:
    for options in ([f"--{what}=/a:/b"], [f"--{what}=/a:/b", "--image=none"]):
        done = submit.run("sbatch", *options)
        assert done.returncode == 255
        assert done.stderr.decode() == f"udi: --{what} needs --image, since {what}s are inside an image\n"


def test_an_image_that_the_environment_alone_asks_for(submit: Submit) -> None:
    done = submit.run("sbatch", env={"_SLURM_SPANK_OPTION_udi_image": "debian:12"})
    assert submit.words() == ["--image", "debian:12"]
    assert b"UDI_IMAGE=debian:12\n" in done.stdout


def test_the_file_at_home_where_the_site_honors_it(submit: Submit, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    answer = "image chos:sl6\nid {}\nvolumes {}\nmodules \nrun \nend\n"
    submit.answers(answer.format("ab" * 32, ""))
    assert (submit.run("sbatch", "--home=yes", env=home).stdout, submit.words()) == (b"", []), "there is none"
    (tmp_path / ".chos").symlink_to("/nowhere")  # which the program looks at
    assert (submit.run("sbatch", env=home).stdout, submit.words()) == (b"", []), "the site does not say so"
    done = submit.run("sbatch", "--home=yes", env=home)
    assert submit.words() == ["--image", "~/.chos"]
    assert done.stdout.startswith(b"UDI_IMAGE=chos:sl6\nUDI_ID=abab"), done
    submit.answers(answer.format("-", "/a:/b"))
    submit.run("sbatch", "--home=yes", "--volume=/a:/b", env=home)
    assert submit.words() == ["--image", "~/.chos", "--volumes", "/a:/b"]
    typed = submit.run("sbatch", "--image=~/.chos", env=home)
    assert typed.stdout.startswith(b"UDI_IMAGE=chos:sl6\n"), typed
    for options in (("--image=none",), ("--image=debian:12",)):
        submit.run("sbatch", "--home=yes", *options, env=home)
        assert "~/.chos" not in submit.words()
    submit.run("srun", "--home=yes", env={**JOB, **home})
    assert submit.words() == [], "a step is its job's"


def test_the_file_at_home_names_nothing(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / ".chos").touch()
    submit.answers("image none\nid -\nvolumes \nmodules \nrun \nend\n")
    done = submit.run("sbatch", "--home=yes", env={"HOME": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    done = submit.run("sbatch", "--home=yes", "--volume=/a:/b", env={"HOME": str(tmp_path)})
    assert (done.returncode, b"--volume needs --image" in done.stderr) == (255, True)


JOB = {"SLURM_JOB_ID": "7", "SLURM_SPANK_UDI_IMAGE": "debian:12", "SLURM_SPANK_UDI_GIVEN_VOLUMES": "/a:/b;/c:/d;/e:/f"}


def test_an_srun_in_a_job_runs_in_the_jobs_image_without_asking(submit: Submit) -> None:
    for options in ([], ["--image=debian:12"], ["--image=none"], ["--image=none", "--volume=/x:/y"]):
        done = submit.run("srun", *options, env=JOB)
        assert (done.returncode, done.stderr, submit.words()) == (0, b"", [])
        assert done.stdout == b"UDI_IMAGE=debian:12\nUDI_ID=\nUDI_VOLUMES=\nUDI_MODULES=\nUDI_RUN=\n", (
            "without Alloc, Prolog knows no more"
        )
    done = submit.run(
        "srun", "--image=debian", env={**JOB, "SLURM_SPANK_UDI_ID": "ab", "SLURM_SPANK_UDI_VOLUMES": "/a:/b"}
    )
    assert (done.returncode, done.stdout) == (
        0,
        b"UDI_IMAGE=debian:12\nUDI_ID=ab\nUDI_VOLUMES=/a:/b\nUDI_MODULES=\nUDI_RUN=\n",
    )
    assert submit.words() == ["--image", "debian", "--job", "7", "--job-image", "debian:12"]


def test_an_srun_whose_job_has_another_image_is_refused_by_the_program(submit: Submit) -> None:
    submit.answers("", more="echo 'udi-slurm-submit: no' >&2; exit 2")
    done = submit.run("srun", "--image=alpine", env=JOB)
    assert (done.returncode, done.stderr) == (255, b"udi-slurm-submit: no\n")


def test_an_srun_in_a_job_leaves_to_the_node_what_it_cannot_know(submit: Submit) -> None:
    assert submit.run("srun", "--image=alpine", env={"SLURM_JOB_ID": "7"}).returncode == 0
    submit.program.unlink()
    assert submit.run("srun", "--image=alpine", env=JOB).returncode == 0


@pytest.mark.parametrize("volumes", ["/a:/b;/c:/d;/e:/f", "/e:/f", "/c:/d;/e:/f"])
def test_volumes_that_an_srun_inherits(submit: Submit, volumes: str) -> None:
    assert submit.run("srun", f"--volume={volumes}", env=JOB).returncode == 0


@pytest.mark.parametrize(
    ("given_modules", "code"), [("mpich;gpu", 0), ("gpu", 0), ("mpich", 255), ("pu", 255), ("", 255)]
)
def test_modules_of_a_step(submit: Submit, given_modules: str, code: int) -> None:
    job = {**JOB, "SLURM_SPANK_UDI_GIVEN_MODULES": "mpich;gpu"}
    done = submit.run("srun", f"--module={given_modules}", env=job)
    assert done.returncode == code
    line = b"udi: modules are the whole job's: give --module to sbatch, to salloc, or to an srun outside of a job\n"
    assert done.stderr == (line if code else b"")


@pytest.mark.parametrize("volumes", ["/a:/b", ":/f", "/x:/y", "", "/a:/b;/c:/d;/e:/f;/g:/h"])
def test_volumes_that_are_a_steps_own(submit: Submit, volumes: str) -> None:
    done = submit.run("srun", f"--volume={volumes}", env=JOB)
    assert done.returncode == 255
    assert done.stderr.startswith(b"udi: volumes are the whole job's")


def test_an_sbatch_in_a_job_is_a_job_of_its_own(submit: Submit) -> None:
    submit.run("sbatch", "--image=alpine", env=JOB)
    assert submit.words() == ["--image", "alpine"]


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "image a\nid -\nvolumes \nmodules \nrun \n",
        "image a\nid -\nvolumes \nend\n",
        "image a\nid -\nvolumes \nmodules \nrun \nend",
        "image a\nid -\nvolumes \nmodules \nrun \nend\nx\n",
        "image a\nid \nvolumes \nmodules \nrun \nend\n",
        "id -\nimage a\nvolumes \nmodules \nrun \nend\n",
        "image a\nid -\nvolumes \nmodules \nrun \nend x\n",
        "image a\n\nid -\nvolumes \nmodules \nrun \nend\n",
    ],
)
def test_an_answer_that_is_none(submit: Submit, answer: str) -> None:
    submit.answers(answer)
    done = submit.run("sbatch", "--image=a")
    assert (done.returncode, done.stdout) == (255, b"")
    assert done.stderr.endswith(b"answers is not understood; this is a fault of the site\n")


def test_an_answer_without_end_is_bounded(submit: Submit) -> None:
    submit.answers("", more="yes image")
    done = submit.run("sbatch", "--image=a")
    assert (done.returncode, done.stdout) == (255, b"")


@pytest.mark.parametrize(
    ("end", "words"),
    [("exit 3", b""), ("kill -9 $$", b" was terminated: Killed\n"), ("kill -14 $$", b" was terminated: Alarm clock\n")],
)
def test_a_program_that_refuses_or_dies(submit: Submit, end: str, words: bytes) -> None:
    submit.answers("image a\nid -\nvolumes \nmodules \nrun \nend\n", more=end)
    done = submit.run("sbatch", "--image=a")
    assert (done.returncode, done.stdout) == (255, b"")
    assert done.stderr.endswith(words) and done.stderr.count(b"\n") == (1 if words else 0)


def test_a_program_that_is_not_there(submit: Submit) -> None:
    submit.program.unlink()
    done = submit.run("sbatch", "--image=a")
    assert done.returncode == 255
    assert done.stderr.endswith(b"cannot be started: No such file or directory; this is a fault of the site\n")


def test_control_characters_reach_no_terminal_and_no_log(submit: Submit) -> None:
    done = submit.run("srun", "--image=a", env={})
    assert done.returncode == 0
    assert "a??[31mb" in verdict_line("a\n\x1b[31mb")


def verdict_line(asked: str) -> str:
    done = run("refuse", asked)
    assert done.returncode == 1
    return done.stderr.decode()


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ([], "/opt/udi/bin/udi-slurm-submit|/var/run/udi-slurm|inside|3600|0"),
        (["submit=/s", "notes=/n", "batch=outside", "seconds=5"], "/s|/n|outside|5|0"),
        (["batch=alps"], "/opt/udi/bin/udi-slurm-submit|/var/run/udi-slurm|alps|3600|0"),
    ],
)
def test_arguments(words: list[str], read: str) -> None:
    assert run("arguments", *words).stdout.decode().strip() == read


@pytest.mark.parametrize(
    "word",
    [
        "",
        "submit=s",
        "submit",
        "notes=",
        "batch=",
        "batch=Inside",
        "seconds=0",
        "seconds=5s",
        "seconds=-1",
        "seconds=",
        "x",
    ],
)
def test_arguments_that_are_none(word: str) -> None:
    assert run("arguments", word).stdout.decode().strip().endswith("|1")
    assert run("submit", "sbatch", word, "--image=a").returncode == 255


@settings(max_examples=60, deadline=None)
@given(st.text("imageidvolumods -\nend", max_size=60).map(str.encode) | st.binary(max_size=40))
def test_any_answer(raw: bytes) -> None:
    run("answer", text=raw)
