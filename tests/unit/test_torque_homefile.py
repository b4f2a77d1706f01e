"""`~/.chos` at qsub: read with the user's rights where the site says so, and never lost in silence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.cray_standins import IMAGE_ID, StandIns
from tests.unit.test_torque_submit_filter import SCRIPT, gateway, run
from torque_hooks.directives import Submission, read_submission
from torque_hooks.homefile import with_image
from torque_hooks.variables import is_requested
from udiroot.errors import UsageError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the map must be root's")
FOUND = {"event": "done", "id": IMAGE_ID, "reference": "chos:sl6"}
PIN = f"#UDI pinned chos:sl6 {IMAGE_ID}\n".encode()
HINT = "qsub -v UDI=chos:sl6; or UDI=none"


class Home:
    """A user with a home directory on a site that honors `~/.chos`."""

    def __init__(self, tmp_path: Path) -> None:
        self.cray = StandIns(tmp_path)
        self.path = tmp_path / "home"
        self.path.mkdir()
        self.map = tmp_path / "chos.d"
        self.map.mkdir()
        self.map.chmod(0o755)
        self.write_map('[sl6]\npath = "/chos/sl6"\n[staff]\npath = "/a"\nusers = ["nobody"]\n')
        self.honored("true")

    def honored(self, value: str) -> None:
        config = self.cray.config_path
        text = config.read_text().partition("\n[chos]")[0]
        config.write_text(f'{text}\n[chos]\nmap = "{self.map}"\nhome_file = {value}\n')

    def write_map(self, text: str) -> None:
        (self.map / "site.toml").write_text(text)
        (self.map / "site.toml").chmod(0o644)

    def file(self, text: bytes) -> None:
        (self.path / ".chos").write_bytes(text)

    def qsub(self, *arguments: str, script: bytes = SCRIPT, **environment: str) -> tuple[int, bytes, str]:
        with gateway(self.cray, FOUND):
            code, out, err = run(self.cray, *arguments, script=script, HOME=str(self.path), **environment)
        os.unlink(self.cray.site.gateway.socket)
        return code, out, err


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_the_job_runs_in_what_it_names(home: Home) -> None:
    assert home.qsub() == (0, SCRIPT, "")
    home.file(b" sl6 \nsomething else\n")
    code, out, err = home.qsub("-l", "nodes=2")
    assert (code, err) == (0, "")
    assert out == b"#!/bin/sh\n" + PIN + b'#PBS -v "UDI=chos:sl6"\naprun -n 2 hostname\n'
    for other in (("-v", "UDI=none"), ("-v", "A=b,UDI=none"), ("-v", "UDI=")):
        code, out, _ = home.qsub(*other)
        assert (code, out) == (0, SCRIPT), other
    code, out, _ = home.qsub("-V", UDI="none")
    assert (code, out) == (0, SCRIPT)
    home.honored("false")
    assert home.qsub() == (0, SCRIPT, "")


def test_the_script_s_own_list_is_kept(home: Home) -> None:
    home.file(b"sl6")
    script = b'#!/bin/sh\n#PBS -N x\n#PBS -v A=1,"B=two words"\n#PBS -v C=3\nhostname\n'
    code, out, err = home.qsub(script=script)
    assert (code, err) == (0, "")
    assert read_submission([], out, {}).variables == {"A": "1", "B": "two words", "UDI": "chos:sl6"}
    assert out.replace(PIN, b"").replace(b'#PBS -v "A=1,B=two words,UDI=chos:sl6"\n', b"") == script


def test_volumes_and_modules_go_with_it(home: Home) -> None:
    volumes, modules = b'#!/bin/sh\n#PBS -v "UDI_VOLUMES=/scratch/x:/b"\n', b"#!/bin/sh\n#PBS -v UDI_MODULES=x\n"
    assert home.qsub(script=volumes)[0] == 255, "there is no image that they could be in"
    home.file(b"sl6\n")
    code, out, err = home.qsub(script=volumes)
    assert (code, err) == (0, "")
    assert read_submission([], out, {}).variables == {"UDI_VOLUMES": "/scratch/x:/b", "UDI": "chos:sl6"}
    code, _, err = home.qsub(script=modules)
    assert (code, len(err.splitlines())) == (255, 1) and "no module 'x' on this system" in err
    code, _, err = home.qsub(script=b"#!/bin/sh\n#PBS -v UDI_VOLUMS=/scratch/x:/b\n")
    assert code == 255 and "UDI_VOLUMS on line 2 of the script" in err, "a line of what the user wrote"
    code, _, err = home.qsub(script=b"#!/bin/sh\n#PBS -v CRAY_ROOTFS=DSL\n")
    assert code == 255 and "CRAY_ROOTFS=DSL contradicts ~/.chos" in err and "or write UDI=none" in err
    code, _, err = home.qsub("-v", "UDI_VOLUMES=/scratch/x:/b")
    assert code == 255 and "qsub goes by its own -v alone" in err


@pytest.mark.parametrize(
    ("arguments", "script", "said"),
    [
        (["-v", "A=b"], SCRIPT, "qsub goes by its own -v alone"),
        (["-I"], b"", "an interactive job has no script"),
        (["-C", "PBS"], SCRIPT, "the script can have no directive for it"),
        ([], b"\x7fELF\0\0", "the script can have no directive for it"),
    ],
)
def test_what_qsub_would_not_pass_on_is_said(home: Home, arguments: list[str], script: bytes, said: str) -> None:
    home.file(b"sl6")
    code, out, err = home.qsub(*arguments, script=script)
    assert (code, out) == (255, b"")
    assert f"~/.chos asks for chos:sl6, but {said}" in err and HINT in err and len(err.splitlines()) == 1


def test_who_may_not(home: Home) -> None:
    home.file(b"staff\n")
    code, _, err = home.qsub()
    assert (code, "root may not use the environment staff" in err) == (255, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"sl5\n", "~/.chos names 'sl5', which the site does not have"),
        (b"\xff\x1b[31m\n", "~/.chos names '"),
        (b"x" * 100_000, "~/.chos names 'xxx"),
        (b"", ""),
        (b"none\n", ""),
    ],
)
def test_a_name_of_another_machine_is_a_warning(home: Home, text: bytes, said: str) -> None:
    home.file(text)
    code, out, err = home.qsub()
    assert (code, out) == (0, SCRIPT)
    assert len(err) < 300 and said in err and len(err.splitlines()) == bool(said) and "\x1b" not in err


def test_what_is_no_file_of_the_user_s(home: Home) -> None:
    file, other = home.path / ".chos", home.path / "other"
    other.write_text("sl6\n")
    for kind, said in (
        ("link", "it is a link"),
        ("fifo", "it is not a regular file"),
        ("directory", "it is not a regular file"),
        ("another's", "it belongs to somebody else"),
    ):
        if kind == "link":
            file.symlink_to(other)
        elif kind == "fifo":
            os.mkfifo(file)
        elif kind == "directory":
            file.mkdir()
        else:
            file.write_text("sl6\n")
            os.chown(file, 1, 1)
        code, out, err = home.qsub()
        assert (code, out) == (0, SCRIPT)
        assert f"~/.chos is not read: {said}; the job runs without an image" in err
        file.rmdir() if kind == "directory" else file.unlink()


def test_a_map_that_cannot_be_read(home: Home) -> None:
    home.file(b"sl6\n")
    home.write_map("[sl6\n")
    code, out, err = home.qsub()
    assert (code, out) == (0, SCRIPT)
    assert "~/.chos is not read, the job runs without an image" in err and "not valid TOML" in err


def test_a_gateway_that_is_down_does_not_lose_it(home: Home) -> None:
    home.file(b"sl6\n")
    code, out, err = run(home.cray, HOME=str(home.path))
    assert code == 0 and b'#PBS -v "UDI=chos:sl6"\n' in out
    assert "image not checked, it will be when the job starts" in err


def test_none_is_no_image() -> None:
    assert not is_requested({"UDI": " none "})
    assert is_requested({"UDI": "none:latest"})


_LINES = ["#PBS -v A=1", "#PBS -v 'B=x y',C", '#PBS -v "D=\'"', "#PBS -N x", "# text", "", "#PBS -V", "echo", "E=2"]
_LINES += ["#PBS -v A=1,\\", "#PBS -v F=\"'"]


@settings(max_examples=200)
@given(st.lists(st.sampled_from(_LINES)), st.booleans())
def test_any_script_gains_the_image_and_loses_nothing(lines: list[str], shebang: bool) -> None:
    script = "\n".join([*(["#!/bin/sh"] if shebang else []), *lines]).encode()

    def read(text: bytes) -> Submission:
        return read_submission([], text, {"C": "of the environment"})

    before = read(script)
    try:
        changed = with_image(script, before, "chos:sl6", read)
    except UsageError as error:
        assert HINT in error.hint
        return
    assert dict(read(changed).variables) == {**before.variables, "UDI": "chos:sl6"}
    assert set(script.split(b"\n")) <= set(changed.split(b"\n"))
