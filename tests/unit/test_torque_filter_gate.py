"""The submit filter for jobs without an image: every qsub of a centre runs it, so it loads and misses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from torque_hooks.directives import read_submission
from torque_hooks.submit_filter import main, may_request_image
from torque_hooks.variables import is_requested

ROOT = Path(__file__).parents[2]
SCRIPT = b"#!/bin/sh\n#PBS -l nodes=2\n#PBS -v A=1\naprun -n 2 hostname\n"


def _modules(code: str, *arguments: str, script: bytes = SCRIPT, home: str = "") -> tuple[set[str], bytes]:
    """The modules that a program has loaded at its end, and what it printed: run without `site`, as from a zip."""
    path = f"import sys; sys.path.insert(0, {str(ROOT)!r})"
    end = "sys.stdout.flush(); sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"{path}\n{code}\n{end}", *arguments],
        input=script,
        capture_output=True,
        env={"PATH": "/bin:/usr/bin", "HOME": home},
        check=True,
    )
    return set(done.stderr.decode().split()), done.stdout


def test_a_job_without_an_image_loads_the_gate_alone() -> None:
    bare, _ = _modules("import os")
    filtering, out = _modules(
        "from torque_hooks.submit_filter import main; main()", "--config", "/etc/UDI/udi.toml", "-l", "nodes=2", "x.sh"
    )
    assert out == SCRIPT
    assert filtering - bare == {"torque_hooks", "torque_hooks.submit_filter"}


@pytest.mark.parametrize(
    ("text", "loads"),
    [
        ("[chos]\nhome_file = true\n", True),
        ("chos.home_file=true", True),
        ("chos = { home_file = true }\n", True),
        ("[chos]\n# home_file = true\n", False),
        ('[store]\npath = "/s"\n', False),
        ("#" * (5 << 20), True),
        (None, True),
    ],
)
def test_the_file_at_home_costs_something_where_the_site_honors_it(
    tmp_path: Path, text: str | None, loads: bool
) -> None:
    """A home directory may be shared with a machine that has environments. A configuration that cannot be read is
    left to what tells the user."""
    (tmp_path / ".chos").write_text("sl6\n")
    config = tmp_path / "udi.toml"
    if text is not None:
        config.write_text(text)
    # what it loads then would print on the stream that the modules are read from
    code = (
        "from torque_hooks import submit_filter as s; s._filtered = lambda _, script: [script, print('L')][0]; s.main()"
    )
    _, out = _modules(code, "--config", str(config), home=str(tmp_path))
    assert out.endswith(b"L\n") == loads
    assert _modules(code, "--config", str(config), home=f"{tmp_path}/none")[1] == SCRIPT


_PIECES = st.sampled_from(
    (
        *(
            "-v",
            "-V",
            "-I",
            "-C",
            "#X",
            "UDI",
            "UDI=a:1",
            "U\\DI=a:1",
            'U"D"I=a',
            "A=1,UDI=b",
            "-vUDI=a",
            "-l",
            "nodes=1",
        ),
        *("#PBS ", "#PBS", "#X ", "U", "D", "I", "=", ",", "\\", '"', "'", " ", "\n", "\t", "x.sh", "\udcff", "echo "),
    )
)
_TEXTS = st.lists(_PIECES, max_size=12).map("".join)
_ENVIRONMENTS = st.dictionaries(
    st.sampled_from(["UDI", "A", "PBS_DPREFIX", "UDIX"]), st.sampled_from(["", "a:1", "#X"])
)


@given(st.lists(_TEXTS, max_size=6), _TEXTS, _ENVIRONMENTS)
@example([], '#PBS -v U\\D"I"=a:1\n', {})
@example(["-V"], "", {"UDI": "a:1"})
@example([], "#PBS -V\n", {"UDI": "a:1"})
@example(["-C", "#X", "-vUDI=a"], "", {})
@example(["--config"], "", {"UDI": "a:1"})
def test_what_the_gate_lets_pass_requests_no_image(
    arguments: Sequence[str], script: str, environment: dict[str, str]
) -> None:
    raw = script.encode("utf-8", "surrogateescape")
    bytes_environment = {os.fsencode(name): os.fsencode(value) for name, value in environment.items()}
    if not may_request_image(list(arguments), raw, bytes_environment):
        assert not is_requested(read_submission(arguments, raw, environment).variables)


@given(st.lists(_TEXTS, max_size=4), st.binary(max_size=300), _ENVIRONMENTS)
def test_the_same_for_any_bytes(arguments: Sequence[str], script: bytes, environment: dict[str, str]) -> None:
    bytes_environment = {os.fsencode(name): os.fsencode(value) for name, value in environment.items()}
    if not may_request_image(list(arguments), script, bytes_environment):
        assert not is_requested(read_submission(arguments, script, environment).variables)


@pytest.mark.parametrize(
    ("arguments", "script", "environment"),
    [
        (["-v", "UDI=a:1"], b"", {}),
        ([], b"#PBS -v UDI=a:1\n", {}),
        ([], b"#PBS -v \"U\"'D'\\I=a:1\n", {}),
        (["-V"], b"", {b"UDI": b"a:1"}),
        (["--config", "/x", "-v", "UDI=a:1"], b"", {}),
    ],
)
def test_requests_are_not_missed(arguments: list[str], script: bytes, environment: dict[bytes, bytes]) -> None:
    assert may_request_image(arguments, script, environment)


def test_a_filter_that_cannot_be_loaded_costs_no_script(tmp_path: Path) -> None:
    broken = tmp_path / "torque_hooks"
    broken.mkdir()
    (broken / "__init__.py").touch()
    (broken / "submit_filter.py").write_bytes((ROOT / "torque_hooks/submit_filter.py").read_bytes())
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from torque_hooks.submit_filter import main; main()"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, "-v", "UDI=a:1"], input=SCRIPT, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, SCRIPT)
    assert done.stderr.count(b"\n") == 1 and b"image not checked" in done.stderr


@pytest.mark.parametrize(
    ("ends", "words"),
    [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor"), ("<&-", "Bad file descriptor")],
)
def test_a_script_that_cannot_be_passed_on_is_one_line(ends: str, words: str) -> None:
    code = "import sys; from torque_hooks.submit_filter import main; sys.exit(main())"
    line = f'"$@" -l nodes=2 {ends}'
    done = subprocess.run(
        ["/bin/sh", "-c", line, "sh", sys.executable, "-c", code],
        input=SCRIPT if "<" not in ends else None,
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.decode() == f"udi-submit-filter: the script cannot be passed on: {words}\n"


def test_an_interrupt_while_qsub_waits_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: list[str], script: bytes) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr("torque_hooks.submission.filtered", interrupted)
    monkeypatch.setattr("torque_hooks.submit_filter._read", lambda descriptor, most: SCRIPT)
    assert main(["-v", "UDI=a:1"]) == 130


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["-v", "UDI=debian:12"], 0), (["-v", "udi=debian:12"], 255)])
def test_a_script_of_any_size_takes_bounded_memory(arguments: list[str], code: int) -> None:
    """A self-extracting archive: qsub writes all of it before it looks at the exit code."""
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (256 << 20,) * 2);"
        " from torque_hooks.submit_filter import main; sys.exit(main())"
    )
    script = SCRIPT + os.urandom(1 << 20) * 300
    done = subprocess.run(
        [sys.executable, "-c", program, "--config", "/no/such", *arguments],
        input=script,
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stdout == script) == (code, not code)
    assert done.stderr.count(b"\n") == bool(arguments)
