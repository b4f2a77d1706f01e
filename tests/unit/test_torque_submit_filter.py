"""The submit filter as qsub runs it: arguments, the script in, the script out, the user's line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.unit.cray_standins import IMAGE_ID, StandIns

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the configuration must be root's")

SCRIPT = b"#!/bin/sh\naprun -n 2 hostname\n"
PIN = f"#UDI pinned debian:12 {IMAGE_ID}\n".encode()


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path)


@contextmanager
def gateway(cray: StandIns, *answer: object, hold: float = 0.0) -> Iterator[list[bytes]]:
    """A service that gives each caller the same answer, or none; it closes the connection `hold` seconds later."""
    seen: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(cray.site.gateway.socket)
    listener.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                seen.append(connection.recv(65536))
                for event in answer:
                    with suppress(BrokenPipeError):  # a filter that does not wait
                        connection.sendall(json.dumps(event).encode() + b"\n")
                time.sleep(hold)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)


FOUND = {"event": "done", "id": IMAGE_ID, "reference": "debian:12"}


def run(cray: StandIns, *arguments: str, script: bytes = SCRIPT, **environment: str) -> tuple[int, bytes, str]:
    code = "import sys; from torque_hooks.submit_filter import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, "--config", str(cray.config_path), *arguments],
        input=script,
        capture_output=True,
        env={"PATH": "/bin:/usr/bin"} | environment,
        cwd=cray.directory,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.decode()


def test_pin(cray: StandIns) -> None:
    with gateway(cray, FOUND) as seen:
        code, out, err = run(cray, "-l", "nodes=2", "-v", "UDI=debian:12", "job.sh")
    assert (code, err) == (0, "")
    assert out == b"#!/bin/sh\n" + PIN + b"aprun -n 2 hostname\n"
    assert b"debian:12" in seen[0]


@pytest.mark.parametrize("script", [b"", b"\0\xff\r\nbinary", b"#!/bin/sh", b"echo\n" * 100_000])
def test_every_script_comes_out_complete(cray: StandIns, script: bytes) -> None:
    assert run(cray, script=script) == (0, script, "")
    with gateway(cray, FOUND):
        code, out, err = run(cray, "-v", "UDI=debian:12", script=script)
    assert (code, err) == (0, "")
    assert sorted(out.replace(PIN, b"").split(b"\n")) in (
        sorted(script.split(b"\n")),
        sorted((script + b"\n").split(b"\n")),
    )


@pytest.mark.parametrize(
    ("arguments", "script"),
    [
        ([], b"\x7fELF\x02\x01\x01\0\0\0\0"),
        (["-C", "//PBS", "-S", "/usr/bin/node"], b"//PBS -N x\nconsole.log(1)\n"),
    ],
)
def test_a_line_that_is_no_comment_there_is_not_added(cray: StandIns, arguments: list[str], script: bytes) -> None:
    with gateway(cray, FOUND):
        assert run(cray, *arguments, "-v", "UDI=debian:12", script=script) == (0, script, "")


FILE = 'image = "debian:12"\nvolumes = ["/scratch/a:/mnt"]\n[environment]\nA = "1,2"\n'
CARRIES = b"#UDI carries file=run.toml;image=debian:12;volumes=/scratch/a:/mnt;set=A%3D1%2C2\n"


def test_an_environment_file_is_read_and_carried(cray: StandIns) -> None:
    (cray.directory / "run.toml").write_text(FILE)
    old = b"#!/bin/sh\n#UDI carries file=old;image=old\n#UDI pinned old " + b"0" * 64 + b"\naprun -n 2 hostname\n"
    with gateway(cray, FOUND) as seen:
        for script in (SCRIPT, old):
            code, out, err = run(cray, "-v", "UDI=@run.toml", script=script)
            assert (code, err) == (0, "")
            assert out == b"#!/bin/sh\n" + PIN + CARRIES + b"aprun -n 2 hostname\n"
    assert b'"debian:12"' in seen[0]


def test_a_gateway_that_fails_does_not_cost_what_the_file_says(cray: StandIns) -> None:
    (cray.directory / "run.toml").write_text(FILE)
    code, out, err = run(cray, "-v", "UDI=@run.toml")
    assert (code, out) == (0, b"#!/bin/sh\n" + CARRIES + b"aprun -n 2 hostname\n")
    assert "image not checked" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "script", "said"),
    [
        (["-v", "UDI=@none.toml"], SCRIPT, "environment file none.toml: it cannot be read: no such file or directory"),
        (["-v", "UDI=@bad.toml"], SCRIPT, "unknown key 'imgae' (did you mean image?) (and 1 more: udi env check bad."),
        (["-v", "UDI=@/dev/stdin"], SCRIPT, "it is not a regular file"),
        (["-v", "UDI=@run.toml,UDI_VOLUMES=/scratch/b:/mnt"], SCRIPT, "have the same target"),
        (["-v", "UDI=@run.toml,UDI_MODULES=x"], SCRIPT, "no module 'x' on this system"),
        (["-I", "-v", "UDI=@run.toml"], b"", "type what it says: -v 'UDI=debian:12,UDI_VOLUMES=/scratch/a:/mnt'"),
        (["-v", "UDI=@run.toml"], b"\x7fELF\0", "a program has no lines to carry environment file run.toml"),
        (["-v", "UDI=@"], SCRIPT, "environment file "),
    ],
)
def test_an_environment_file_that_is_refused(cray: StandIns, arguments: list[str], script: bytes, said: str) -> None:
    (cray.directory / "run.toml").write_text(FILE)
    (cray.directory / "bad.toml").write_text('imgae = "debian:12"\nmodules = ""\n')
    code, out, err = run(cray, *arguments, script=script)
    assert (code, out, err.count("\n")) == (255, b"", 1)
    assert said in err


def test_directive_of_the_script(cray: StandIns) -> None:
    script = b"#!/bin/sh\n#PBS -v UDI=debian:12\naprun x\n"
    with gateway(cray, FOUND):
        assert PIN in run(cray, script=script)[1]


@pytest.mark.parametrize(
    ("arguments", "script"),
    [
        (["-v", "OTHER=1"], b"#!/bin/sh\n#PBS -v UDI=debian:12\naprun x\n"),
        (["-v", "UDI=debian:12,UDI_VOLUMES=/scratch/a:/mnt,/scratch/b:/srv"], SCRIPT),
        (["-v", "udi=debian:12"], SCRIPT),
        ([], b"#!/bin/sh\nexport UDI=debian:12\naprun x\n"),
    ],
)
def test_a_request_that_would_be_lost_is_refused_in_one_line(
    cray: StandIns, arguments: list[str], script: bytes
) -> None:
    code, out, err = run(cray, *arguments, script=script)
    assert (code, out) == (255, b"")
    assert err.startswith("udi-submit-filter: ") and err.count("\n") == 1


def test_a_warning_is_one_line_and_the_job_goes_on(cray: StandIns) -> None:
    script = b"#!/bin/sh\nexport CRAY_ROOTFS=DSL\naprun x\n"
    with gateway(cray, FOUND):
        code, out, err = run(cray, "-v", "UDI=debian:12", script=script)
    assert code == 0 and PIN in out
    assert err == (
        "udi-submit-filter: warning: CRAY_ROOTFS=DSL on line 2 of the script: aprun does not enter the image after it\n"
    )


@pytest.mark.parametrize("spelling", ["docker:debian:12", "docker://debian:12", "docker:docker.io/library/debian:12"])
def test_a_reference_as_it_is_taught_elsewhere(cray: StandIns, spelling: str) -> None:
    with gateway(cray, FOUND) as seen:
        assert PIN in run(cray, "-v", f"UDI={spelling}")[1]
    assert json.loads(seen[0])["reference"] == "debian:12"


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("UDI=Debian:12", "not an image name"),
        ("UDI=debian:$(reboot)", "not an image name: 'debian:$(reboot)'"),
        ("UDI=debian:12,UDI_VOLUMES=/home/x:/output", "not in a directory that the site allows"),
        ("UDI=debian:12,UDI_VOLUMES=/scratch/x", "not a volume"),
    ],
)
def test_refusal_is_one_line(cray: StandIns, listed: str, message: str) -> None:
    code, out, err = run(cray, "-v", listed)
    assert code == 255 and out == b"" and message in err and err.count("\n") == 1


def test_no_such_image(cray: StandIns) -> None:
    answer = {
        "event": "error",
        "exit_code": 3,
        "message": "no image 'debian:12'",
        "hint": "",
    }
    with gateway(cray, answer):
        code, out, err = run(cray, "-v", "UDI=debian:12")
    assert code == 255 and out == b"" and "no image" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("image 'debian:12' has no /bin/sh", "use an image with a shell"),
        ("image 'debian:12' is for arm64, not amd64", ""),
        ("layer sha256:ab has another digest", "pull it again"),
    ],
)
def test_an_invalid_image_is_refused_with_its_reason(cray: StandIns, message: str, hint: str) -> None:
    """Whatever the user must change is reported at qsub, by the error's owner and not by a list of classes."""
    answer = {"event": "error", "exit_code": 5, "message": message, "hint": hint}
    with gateway(cray, answer):
        code, out, err = run(cray, "-v", "UDI=debian:12")
    assert (code, out) == (255, b"")
    assert err == f"udi-submit-filter: {message}{f' ({hint})' if hint else ''}\n"


@pytest.mark.parametrize("code", [6, 7, 8, 9, 70])
def test_an_error_that_is_not_the_users_costs_no_script(cray: StandIns, code: int) -> None:
    with gateway(cray, {"event": "error", "exit_code": code, "message": "store is full", "hint": ""}):
        status, out, err = run(cray, "-v", "UDI=debian:12")
    assert (status, out) == (0, SCRIPT)
    assert err == "udi-submit-filter: image not checked, it will be when the job starts: store is full\n"


def test_without_gateway_the_job_goes_on_unpinned(cray: StandIns) -> None:
    code, out, err = run(cray, "-v", "UDI=debian:12")
    assert (code, out) == (0, SCRIPT) and err.count("\n") == 1 and "will be when the job starts" in err


@pytest.mark.parametrize("answers", [(), ("nonsense",), ({"event": "done"},)])
def test_gateway_that_talks_nonsense(cray: StandIns, answers: tuple[object, ...]) -> None:
    with gateway(cray, *answers):
        code, out, err = run(cray, "-v", "UDI=debian:12")
    assert (code, out) == (0, SCRIPT) and err.count("\n") == 1


def test_broken_configuration_loses_no_script(cray: StandIns) -> None:
    cray.config_path.write_text("nonsense")
    code, out, err = run(cray, "-v", "UDI=debian:12")
    assert (code, out) == (0, SCRIPT) and "not valid TOML" in err


def test_interactive_is_checked_and_left_alone(cray: StandIns) -> None:
    with gateway(cray, FOUND):
        assert run(cray, "-I", "-v", "UDI=debian:12", script=b"\n\n") == (0, b"\n\n", "")
    assert run(cray, "-I", "-v", "UDI=Bad Name", script=b"\n\n")[0] == 255


# An image that is not there yet

ASKING = {"event": "progress", "stage": "querying docker.io", "bytes": 0, "total": 0}
FETCHING = {"event": "progress", "stage": "fetching", "bytes": 1 << 20, "total": 1 << 21, "layers": [["ab12", 1, 2]]}
PACKING = {"event": "progress", "stage": "packing", "bytes": 1 << 20, "total": 1 << 21}


@pytest.mark.parametrize(("asking", "shown"), [([ASKING], []), ([ASKING, ASKING], ["querying docker.io"])])
def test_qsub_shows_the_pull_and_waits(cray: StandIns, asking: list[dict[str, object]], shown: list[str]) -> None:
    """A registry that answers at once is not worth a line; one that takes long is."""
    with gateway(cray, *asking, FETCHING, PACKING, FOUND) as seen:
        code, out, err = run(cray, "-v", "UDI=debian:12")
    assert code == 0 and PIN in out
    assert json.loads(seen[0])["do"] == "submit"
    lines = err.splitlines()
    assert lines[0] == "udi-submit-filter: pulling debian:12; UDI_WAIT=no submits without waiting"
    assert [line.split(":")[0] for line in lines[1:]] == [*shown, "fetching", "packing"]


@pytest.mark.parametrize("word", ["no", "NO", "0"])
def test_qsub_need_not_wait(cray: StandIns, word: str) -> None:
    with gateway(cray, ASKING, FETCHING):
        code, out, err = run(cray, "-v", f"UDI=debian:12,UDI_WAIT={word}")
    assert (code, out) == (0, SCRIPT)
    assert err == (
        "udi-submit-filter: image debian:12 is being pulled (the job fails if the pull has not finished by job start)\n"
    )


def test_an_image_that_is_there_costs_no_waiting(cray: StandIns) -> None:
    with gateway(cray, FOUND):
        assert PIN in run(cray, "-v", "UDI=debian:12,UDI_WAIT=no")[1]


def test_a_pull_that_takes_too_long_goes_on_without_qsub(cray: StandIns) -> None:
    text = cray.config_path.read_text()
    cray.config_path.write_text(text.replace("[gateway]", "[gateway]\nsubmission_wait = 1"))
    with gateway(cray, FETCHING, hold=4.0):
        code, out, err = run(cray, "-v", "UDI=debian:12")
    assert (code, out) == (0, SCRIPT)
    assert "image debian:12 not ready after 1 s; submitting anyway, the pull continues" in err


def test_an_image_that_cannot_be_pulled(cray: StandIns) -> None:
    error = {
        "event": "error",
        "message": "image 'debian:12' not found, or you do not have access to it",
        "hint": "",
        "exit_code": 3,
    }
    with gateway(cray, ASKING, error):
        code, out, err = run(cray, "-v", "UDI=debian:12")
    assert code == 255 and out == b""
    assert err == "udi-submit-filter: image 'debian:12' not found, or you do not have access to it\n"


def test_what_the_scanner_found_is_a_warning(cray: StandIns) -> None:
    with gateway(cray, FOUND | {"warnings": ["image debian:12 has 1 high finding\x1b[31m"]}):
        code, out, err = run(cray, "-v", "UDI=debian:12")
    assert code == 0 and PIN in out
    assert err == "udi-submit-filter: warning: image debian:12 has 1 high finding\\x1b[31m\n"


def test_what_the_scanner_found_is_a_refusal(cray: StandIns) -> None:
    found = "image debian:12 has 1 critical finding, which this site refuses for new jobs"
    with gateway(cray, {"event": "error", "message": found, "hint": "x", "exit_code": 4}):
        code, out, err = run(cray, "-v", "UDI=debian:12")
    assert code == 255 and out == b""
    assert err == f"udi-submit-filter: {found} (x)\n"


def test_a_site_where_qsub_pulls_nothing(cray: StandIns) -> None:
    text = cray.config_path.read_text()
    cray.config_path.write_text(text.replace("[gateway]", "[gateway]\npull_at_submission = false"))
    with gateway(cray, FOUND) as seen:
        assert PIN in run(cray, "-v", "UDI=debian:12")[1]
    assert json.loads(seen[0])["do"] == "submit"
