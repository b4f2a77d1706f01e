"""Programs of the host as xcsim and the benchmarks run them: complete output, any bytes, and one line for a failure."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.gone import require_gone
from udiroot.errors import SetupFailed, UpstreamFailed
from xcsim import tools


def test_output_is_complete_and_stderr_is_not_in_it() -> None:
    assert len(tools.run("head", "-c", "300000", "/dev/zero", failure="x")) == 300000
    assert tools.run("sh", "-c", "echo out; echo err >&2", failure="x") == "out\n"


def test_arguments_and_input_are_any_bytes() -> None:
    assert tools.run("printf", "%s|", "two words", "ä\udcff", Path("/a b"), failure="x") == "two words|ä\udcff|/a b|"
    assert tools.run("cat", input="ä\udcff\n", failure="x") == "ä\udcff\n"
    assert tools.run("cat", failure="x") == ""


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo first >&2; echo second >&2; echo out; exit 3", "second"),
        ("echo out; exit 3", "out"),
        ("exit 3", "sh exited with status 3"),
        ("kill -9 $$", "sh was terminated by signal 9"),
    ],
)
def test_a_failure_is_one_line(script: str, reason: str) -> None:
    with pytest.raises(UpstreamFailed) as raised:
        tools.run("sh", "-c", script, failure="it was not made", error=UpstreamFailed, hint="look there")
    assert (raised.value.message, raised.value.hint) == (f"it was not made: {reason}", "look there")


def test_a_timeout_kills_the_process_group(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(SetupFailed, match=r"^it was not made: sh did not finish in 0\.2 seconds$"):
        script = f"sleep 60 & echo $! >{tmp_path}/pid; sleep 60"
        tools.run("sh", "-c", script, failure="it was not made", seconds=0.2)
    assert time.monotonic() - began < 30
    require_gone(tmp_path / "pid")


def test_a_program_that_does_not_exist() -> None:
    with pytest.raises(SetupFailed, match=r"^no-such-program is missing$"):
        tools.run("no-such-program", failure="x", error=UpstreamFailed)
