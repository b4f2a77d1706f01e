"""Which of three a node is in the end: reported, not started, no answer. The node's shells are real."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udi import nodezip
from udi.config import SiteConfig, StoreConfig
from udi.fanout import Answers, FanOutResult
from udi.nodecommand import check_command
from udi.nodeconfig import NodeConfig
from udi.nodes import Node, named, numbered

NONCE = "ab" * 16
TWELVE, THIRTEEN = numbered(12), numbered(13)


def result(*lines: str, asked: tuple[Node, ...] = (TWELVE, THIRTEEN), source: Node | None = None) -> FanOutResult:
    answers = Answers(asked, lambda node: str(node.number) if node.number is not None else node.name, NONCE)
    for line in lines:
        answers.read(line, source)
    return answers.result("not within 9 seconds")


_LINES = {
    "ok": "UDI-REPORT {nonce} {node} ok 5 0 - - done",
    "failed": "UDI-REPORT {nonce} {node} failed 5 74 - - not done",
    "died": "UDI-EXIT {nonce} {node} 137 started killed",
    "not started": "UDI-EXIT {nonce} {node} 127 not-started not found",
    "other": "nid000{node} said something",
}


@given(st.lists(st.tuples(st.sampled_from(sorted(_LINES)), st.sampled_from([12, 13, 14, 99]), st.booleans())))
def test_it_is_complete_once_every_node_has_made_a_line(lines: list[tuple[str, int, bool]]) -> None:
    asked = (TWELVE, THIRTEEN, numbered(14))
    answers = Answers(asked, lambda node: str(node.number), NONCE)
    heard: set[int] = set()
    for kind, number, with_source in lines:
        source = numbered(number) if with_source and numbered(number) in asked else None
        complete = answers.read(_LINES[kind].format(nonce=NONCE, node=number), source)
        heard |= {number} if kind != "other" else set()
        assert complete == answers.complete == heard.issuperset(node.number for node in asked)


def test_three_outcomes() -> None:
    found = result(
        f"UDI-REPORT {NONCE} 12 ok 5 0 - - done",
        f"UDI-EXIT {NONCE} 13 127 not-started sh: /dsl/ld: not found",
        asked=(TWELVE, THIRTEEN, numbered(14)),
    )
    assert found.errors() == {
        THIRTEEN: "could not start: exit code 127: sh: /dsl/ld: not found",
        numbered(14): "no answer: not within 9 seconds",
    }
    assert found.silent == (numbered(14),) and not found.ok


@pytest.mark.parametrize(
    "line",
    [
        f"UDI-EXIT {'cd' * 16} 12 127 not-started x",
        f"UDI-EXIT {NONCE} 99 127 not-started x",
        f"UDI-EXIT {NONCE} 12 127 maybe x",
        f"UDI-EXIT {NONCE} 12 x not-started x",
        f"UDI-EXIT {NONCE} 12 127",
        f"x UDI-EXIT {NONCE} 12 127 not-started x",
        "",
    ],
)
def test_other_lines_say_nothing(line: str) -> None:
    assert result(line).silent == (TWELVE, THIRTEEN)


def test_a_report_counts_more_than_the_end() -> None:
    end = f"UDI-EXIT {NONCE} 12 7 not-started x"
    report = f"UDI-REPORT {NONCE} 12 failed 5 7 - - mount busy"
    for lines in ((end, report), (report, end)):
        assert result(*lines, asked=(TWELVE,)).errors() == {TWELVE: "mount busy"}


def test_a_command_that_was_killed_is_no_answer_with_its_cause() -> None:
    found = result(f"UDI-EXIT {NONCE} 12 137 started UDI-STARTED Killed")
    assert found.errors()[TWELVE] == "no answer: exit code 137 (signal 9): Killed"
    assert found.silent == (TWELVE, THIRTEEN)


def test_nodes_that_do_not_know_who_they_are() -> None:
    """As many lines without a name as nodes without a line: it is they. One fewer, and nobody knows."""
    nameless = (f"UDI-REPORT {NONCE} unknown failed 1 7 - - no nid", f"UDI-EXIT {NONCE} - 126 not-started x")
    assert set(result(*nameless).not_started) == {TWELVE, THIRTEEN}
    assert result(nameless[0]).silent == (TWELVE, THIRTEEN)
    one = result(f"UDI-REPORT {NONCE} 12 ok 1 0 - - done", nameless[0])
    assert one.not_started == {THIRTEEN: "exit code 7: no nid"}
    assert result(f"UDI-EXIT {NONCE} - 137 started x", f"UDI-EXIT {NONCE} - 137 started x").not_started == {}


def test_a_host_speaks_for_itself_only() -> None:
    c1, c2 = named("c1"), named("c2")
    line = f"UDI-EXIT {NONCE} - 127 not-started sh: not found"
    assert result(line, asked=(c1, c2), source=c1).errors() == {
        c1: "could not start: exit code 127: sh: not found",
        c2: "no answer: not within 9 seconds",
    }
    assert result(f"UDI-EXIT {NONCE} c2 127 not-started x", asked=(c1, c2), source=c1).not_started == {}


def test_words_are_printable_and_bounded() -> None:
    words = result(f"UDI-EXIT {NONCE} 12 127 not-started \x1b[31m" + "x" * 70000).not_started[TWELVE]
    assert words.isprintable() and len(words) < 400 and "\\x1b" in words


# -- the line itself, in real shells ----------------------------------------------------------------------------------


OURS = numbered(123_456_789)
"""A node that no other test has: the check looks at the loop devices of the complete host."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("zip") / "udi.zip")
    site = SiteConfig(store=StoreConfig(path="/"))
    nodezip.build(replace(site, install=replace(site.install, python=sys.executable)), path)
    return path


@pytest.fixture(params=["sh", "bash", "busybox sh", "ksh"])
def shell(request: pytest.FixtureRequest) -> list[str]:
    program, *words = str(request.param).split()
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program}")
    return [found, *words]


def on_node(
    shell: list[str], tmp_path: Path, node: NodeConfig, nid: str = f"{OURS.number}\n"
) -> tuple[FanOutResult, int]:
    """Run the check's line, by that login shell."""
    nid_file = tmp_path / "nid"
    nid_file.write_text(nid)
    node = replace(node, root=f"{tmp_path}/root", run=f"{tmp_path}/run")
    line = check_command(SiteConfig(store=StoreConfig(path="/"), node=node), str(nid_file), NONCE)
    done = subprocess.run([*shell, "-c", line], capture_output=True, text=True, check=False, timeout=60)
    return result(*done.stdout.splitlines(), asked=(OURS,)), done.returncode


PYTHON = (sys.executable,)
_CRASH = "#!/bin/sh\nkill -SEGV $$\n"
_NO_LIBRARY = "#!/bin/sh\necho 'python3: error while loading shared libraries: libz.so.1: cannot open' >&2\nexit 127\n"
_NO_ENCODINGS = "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'encodings'\" >&2\nexit 1\n"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("/no/such/ld.so", "exit code 127: "),
        ("/etc/passwd", "exit code 126: "),
        ("/bin/true", "exit code 0 without a message"),
        ("/bin/false", "exit code 1 without a message"),
        (_CRASH, "exit code 139"),
        (_NO_LIBRARY, "exit code 127: python3: error while loading shared libraries: libz.so.1: cannot open"),
        (_NO_ENCODINGS, "exit code 1: ModuleNotFoundError: No module named 'encodings'"),
        ("#!/no/such/interpreter\n", "exit code 12"),
        ("zip", "No module named 'bundle'"),
        ("broken zip", "exit code 1: Traceback"),
        ("old python", "exit code 2: "),
    ],
)
def test_what_cannot_start(shell: list[str], tmp_path: Path, archive: str, program: str, words: str) -> None:
    python: tuple[str, ...] = (program,)
    path = archive
    if program.startswith("#!"):
        script = tmp_path / "python"
        script.write_text(program)
        script.chmod(0o755)
        python = (str(script),)
    elif "zip" in program:
        python, path = PYTHON, str(tmp_path / "udi.zip")
        if program == "broken zip":
            Path(path).write_bytes(Path(archive).read_bytes()[:-100])
    elif program == "old python":
        python = (sys.executable, "--no-such-option")
    found, _ = on_node(shell, tmp_path, NodeConfig(zip=path, python=python))
    assert list(found.not_started) == [OURS] and words in found.not_started[OURS], found.errors()


def test_what_starts_reports(shell: list[str], tmp_path: Path, archive: str) -> None:
    found, code = on_node(shell, tmp_path, NodeConfig(zip=archive, python=PYTHON))
    assert list(found.reports) == [OURS] and code == found.reports[OURS].code


def test_what_starts_and_is_killed_is_no_answer(shell: list[str], tmp_path: Path, archive: str) -> None:
    script = tmp_path / "python"
    script.write_text(
        f"#!/bin/sh\n{shlex.quote(sys.executable)} -c 'print()' >/dev/null\necho UDI-STARTED >&2\nkill -9 $$\n"
    )
    script.chmod(0o755)
    found, code = on_node(shell, tmp_path, NodeConfig(zip=archive, python=(str(script),)))
    assert found.silent == (OURS,) and code == 137
    assert "no answer: exit code 137 (signal 9)" in found.errors()[OURS]


@pytest.mark.parametrize("nid", ["", "\n", "x y z\n", f"{OURS.number} 34\n"])
def test_a_nid_that_cannot_be_read(shell: list[str], tmp_path: Path, archive: str, nid: str) -> None:
    found, _ = on_node(shell, tmp_path, NodeConfig(zip=archive, python=("/no/such/python",)), nid)
    if nid == "x y z\n":
        assert found.silent == (OURS,)
    else:
        assert "exit code 127" in found.not_started[OURS]
