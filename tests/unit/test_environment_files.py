"""Environment files as their users write them, and EDF files: what they amount to, and every way to be wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udi.carried import Carried, RunChanges
from udi.edf import EDF_KEYS
from udi.runfile import KEYS, carry, examined, read_run_file
from udiroot.errors import UsageError

USERS = {"USER": "alice", "SCRATCH": "/scratch/alice", "EMPTY": "", "ODD": "a\nb"}
OURS = """
image = "team/app:1.0"
volumes = ["${SCRATCH}/run:/output", "/scratch/data:/input:ro"]
modules = ["mpich", "gpu"]
unset = ["DISPLAY"]
workdir = "/output"
entrypoint = ["/opt/app/bin/solver", "--threads"]
args = ["-v", "input ${USER}.dat"]

[environment]
OMP_NUM_THREADS = "8"
PATH = "/opt/app/bin:${PATH}"
LIST = "${LIST:-}:/a:/b"
BOTH = "/front:${BOTH}:${SCRATCH}"
SAME = "${SAME}"
LITERAL = "$HOME $${USER} ${NONE:-else}${EMPTY}"
"""
EDF = """
image = "nvcr.io#nvidia/pytorch:22.12-py3"
mounts = ["/capstor/${USER}:/capstor/${USER}", "/a:/b:ro+private", "./here:/c:rw"]
workdir = "/capstor/${USER}"
entrypoint = false
writable = false
base_environment = ""
devices = []

[env]
MY_RUN = "production"
PATH = "${PATH}:/custom/bin"
DEBUG = ""

[annotations]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run.toml"


def wrong(file: Path, text: str | bytes) -> tuple[str, ...]:
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    found, lines = examined("run.toml", USERS)
    assert found is None
    assert all(line.startswith("run.toml: ") and line.isprintable() for line in lines)
    return tuple(line.removeprefix("run.toml: ") for line in lines)


def test_all_keys(file: Path) -> None:
    file.write_text(OURS)
    assert read_run_file("run.toml", USERS) == Carried(
        "run.toml",
        "team/app:1.0",
        "/scratch/alice/run:/output;/scratch/data:/input:ro",
        "mpich;gpu",
        RunChanges(
            "/output",
            ("/opt/app/bin/solver", "--threads"),
            ("-v", "input alice.dat"),
            (
                ("unset", "DISPLAY"),
                ("set", "OMP_NUM_THREADS=8"),
                ("prepend", "PATH=/opt/app/bin"),
                ("append", "LIST=/a:/b"),
                ("prepend", "BOTH=/front"),
                ("append", "BOTH=/scratch/alice"),
                ("set", "LITERAL=$HOME ${USER} else"),
            ),
        ),
    )


def test_an_edf_file(file: Path) -> None:
    file.write_text(EDF)
    assert read_run_file("run.toml", USERS) == Carried(
        "run.toml",
        "nvcr.io/nvidia/pytorch:22.12-py3",
        f"/capstor/alice:/capstor/alice;/a:/b:ro;{file.parent}/here:/c",
        "",
        RunChanges("/capstor/alice", (), None, (("set", "MY_RUN=production"), ("append", "PATH=/custom/bin"),
                                                ("unset", "DEBUG"))),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("image", "means"),
    [
        ("library/ubuntu:24.04", "library/ubuntu:24.04"),
        ("docker.io#library/ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
        ("quay.io#madeeks/osu-mb:6.2", "quay.io/madeeks/osu-mb:6.2"),
        ("app@sha256:" + "a" * 64, "app@sha256:" + "a" * 64),
    ],
)
def test_images_as_edf_files_name_them(file: Path, image: str, means: str) -> None:
    file.write_text(f'image = "{image}"\n[env]\n')
    assert read_run_file("run.toml", USERS).image == means


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('imgae = "a"', "unknown key 'imgae' (did you mean image?)"),
        ('image = "a"\nvolume = []', "unknown key 'volume' (did you mean volumes?)"),
        ('image = "a"\nzzz = 1', "unknown key 'zzz' (there are: image, volumes, modules, unset, workdir, entrypoint,"),
        ("", 'image is missing: write image = "NAME:TAG"'),
        ('image = "UPPER"', "image: not an image name: 'UPPER'"),
        ('image = "@b.toml"', "image must not be another environment file"),
        ("image = 1", 'image must be text, as "1", not a number'),
        ('image = "a\\u0007"', "image has a control character"),
        ('image = "a"\nvolumes = "/a:/b"', 'volumes must be a list, as ["..."], not text'),
        ('image = "a"\nvolumes = ["/a:/b", "a:/b"]', "volumes[1]: volume 'a:/b': 'a' is not an absolute path"),
        ('image = "a"\nvolumes = ["/a:/b;/c:/d"]', "volumes[0]: '/a:/b;/c:/d' has a semicolon"),
        ('image = "a"\nvolumes = [["/a:/b"]]', "volumes[0] must be text, not a list"),
        ('image = "a"\nmodules = ["a;b"]', "modules[0]: not a module's name: 'a;b'"),
        ('image = "a"\nmodules = [""]', "modules[0]: not a module's name: ''"),
        ('image = "a"\nworkdir = "rel"', "workdir must be a plain absolute path, not 'rel'"),
        ('image = "a"\nworkdir = "${NOPE}"', "workdir: ${NOPE} is not set in your environment"),
        ('image = "a"\nworkdir = "/${a-b}"', "workdir: ${ begins a variable"),
        ('image = "a"\nworkdir = "/${ODD}"', "workdir: ${ODD} of your environment has a control character"),
        ('image = "a"\nargs = "x"', 'args must be a list, as ["..."], not text'),
        ('image = "a"\nentrypoint = [""]', "entrypoint must begin with a program"),
        ('image = "a"\nunset = ["HOME"]', "environment must not have HOME, which is the job's"),
        ('image = "a"\nenvironment = 1', "environment must be a table of at most 512 variables"),
        ('image = "a"\n[environment]\nA = true', "environment.A must be text, not a boolean"),
        ('image = "a"\n[environment]\nA = "x${A}"', "environment.A: ${A} must be at one end of a list"),
        ('image = "a"\n[environment]\nA = "${A}:${A}"', "environment.A: ${A} must be at one end of a list"),
        ('image = "a"\n[environment]\nA = "${A}::/b"', "environment must have no empty element, and A is ':/b'"),
        ('image = "a"\n[environment]\nA = 1979-05-27', "environment.A must be text, not a date"),
        ('image = "a"\nvolumes = []\nmounts = []', "volumes is a key of environment files and mounts one of EDF files"),
        ('image = "a"\n[env]\n[environment]', "environment is a key of environment files and env one of EDF files"),
        ('image = "a"\nwritable = true', "writable must be false: an image is read-only here"),
        ('image = "a"\nbase_environment = ["x"]', "base_environment is not read here"),
        ('image = "a"\ndevices = ["nvidia.com/gpu=all"]', "devices cannot be had here"),
        ('image = "a"\n[annotations]\ncom.hooks.ssh.enabled = "true"', "annotations cannot be had here"),
        ('image = "/x.sqsh"\n[env]', "image is a file (udi pull squashfs:/x.sqsh NAME:TAG"),
        ('image = "me@nvcr.io#a/b"\n[env]', "image: a registry's account is not taken from the file"),
        ('image = "a"\nmounts = ["/a.sqsh:/b:sqsh"]', "mounts[0]: an image file cannot be a volume"),
        ('image = "a"\nmounts = ["/a:/b:slave"]', "mounts[0]: flag 'slave' is not known here; ro is"),
        ('image = "a"\nmounts = ["/a"]', "mounts[0]: volume '/a:'"),
        ('image = "a"\nmount = []\n[env]', "unknown key 'mount' (did you mean mounts?)"),
        ("image", "it is not TOML: "),
        ("a = " + "[" * 5000, "it is nested too deeply"),
        (b"image = '\xff'", "it is not text in UTF-8"),
        (b"#" * 70000, "it has over 65536 bytes"),
        ('image = "a"\nargs = [' + '"x",' * 600 + "]", "args has 600 elements, over 512"),
        ('image = "a"\nargs = ["' + "x" * 17000 + '"]', "a job would have to carry"),
    ],
)  # fmt: skip
def test_wrong(file: Path, text: str | bytes, said: str) -> None:
    lines = wrong(file, text)
    assert any(line.startswith(said) for line in lines), lines


def test_everything_wrong_is_named_and_a_submission_names_the_first(file: Path) -> None:
    lines = wrong(file, 'imgae = "a"\nworkdir = "x"\nmodules = "m"\n')
    assert len(lines) == 3
    with pytest.raises(UsageError) as caught:
        carry("@run.toml", USERS)
    assert caught.value.message == "environment file run.toml: unknown key 'imgae' (did you mean image?)"
    assert caught.value.hint == "and 2 more: udi env check run.toml"


def test_what_is_no_file_is_refused_and_never_waited_for(file: Path) -> None:
    os.mkfifo(file)
    assert examined("run.toml", USERS)[1] == ("run.toml: it is not a regular file",)
    assert examined("none.toml", USERS)[1] == ("none.toml: it cannot be read: no such file or directory",)
    for name in ("a\0b", "a\nb", "x" * 391):
        assert "its name has over 390 characters, or some that cannot be printed" in examined(name, USERS)[1][0]
    assert examined("", USERS)[0] is None
    assert examined("/dev/null", USERS)[1] == ("/dev/null: it is not a regular file",)
    assert carry("debian:12", USERS) == ""


def test_the_document_has_every_key_and_an_example_that_is_right(file: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/environment-files.md").read_text()
    ours, edf = text.split("## EDF files")
    for part, keys in ((ours, KEYS), (edf, EDF_KEYS)):
        assert not [key for key in keys if f"`{key}`" not in part and f"`[{key}]`" not in part]
    file.write_text(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0])
    assert set(tomllib.loads(file.read_text())) == set(KEYS)
    assert read_run_file("run.toml", USERS).volumes == "/scratch/alice/run:/output;/scratch/shared/data:/input:ro"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
).filter(lambda value: value is not None)
ANY_KEY = st.sampled_from(
    ["image", "volumes", "modules", "environment", "env", "mounts", "workdir", "entrypoint", "args"]
)


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(each) for each in value if each is not None) + "]"
    return json.dumps(value)


@given(st.dictionaries(ANY_KEY, VALUES, max_size=5))
def test_no_file_is_taken_for_what_it_is_not(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, object]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in document.items()), errors="replace")
    found, lines = examined(str(path), USERS)
    assert (found is None) == bool(lines) and all(line.isprintable() for line in lines)
    if found is not None:
        assert Carried.parse(found.text()) == found


def udi(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from outside.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "--config", "/nonexistent", *words],
        cwd=cwd,
        env={"PATH": "/bin:/usr/bin", "PYTHONPATH": str(Path(__file__).parents[2]), **USERS},
        capture_output=True,
        text=True,
        check=False,
    )


def test_check_and_show_on_a_host_without_a_site(file: Path) -> None:
    file.write_text(OURS)
    assert udi("env", "check", "run.toml", cwd=file.parent).returncode == 0
    shown = json.loads(udi("env", "show", "--json", "run.toml", cwd=file.parent).stdout)
    assert (shown["image"], shown["id"], shown["workdir"]) == ("team/app:1.0", "", "/output")
    assert "volume      /scratch/alice/run:/output\n" in udi("env", "show", "run.toml", cwd=file.parent).stdout
    file.write_text("imgae = 1\nworkdir = 2\n")
    done = udi("env", "check", "run.toml", cwd=file.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "udi: run.toml: unknown key 'imgae' (did you mean image?)",
        'udi: run.toml: workdir must be text, as "2", not a number',
    ]
    assert udi("env", "show", "run.toml", cwd=file.parent).returncode == 2
