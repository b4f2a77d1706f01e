"""docs/operations.md has a row for each message for the site or a node to act on, and none of one that is gone."""

from __future__ import annotations

import re

import pytest

from tests.unit.operator_messages import ROOT, SAYING, VALUE, messages, of_plugin, of_shell

PAGE = ROOT / "docs/operations.md"


def patterns() -> list[str]:
    """The code spans in the first column of the tables of messages."""
    rows = [
        row for table in PAGE.read_text().split("| message |")[1:] for row in table.splitlines() if row[:3] == "| `"
    ]
    return [span for row in rows for span in re.findall(r"`([^`]+)`", row.split(" | ")[0])]


def covers(pattern: str, message: str) -> bool:
    parts = [re.escape(part) for part in pattern.split(VALUE)]
    return re.fullmatch(".*".join(parts), message, re.DOTALL) is not None


def test_every_message_has_a_row() -> None:
    known = patterns()
    missing = {text: where for text, where in messages() if not any(covers(each, text) for each in known)}
    told = "\n".join(f"  {where}: {text}" for text, where in missing.items())
    assert not missing, f"docs/operations.md has no row for these; say there what they mean and what to do:\n{told}"


def test_no_row_is_of_a_message_that_is_gone() -> None:
    texts = {text for text, _ in messages()}
    gone = [each for each in patterns() if not any(covers(each, text) for text in texts)]
    assert not gone, f"docs/operations.md explains what no program says: {gone}"


def test_a_row_says_what_it_means_and_what_to_do() -> None:
    for line in PAGE.read_text().splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
            assert len(cells) == 3 and all(cells), line


@pytest.mark.parametrize(
    ("pattern", "message", "expected"),
    [
        ("setup on …: …", "setup on …: …", True),
        ("plan: …", "plan: line … is invalid", True),
        ("plan: …", "the plan: x", False),
        ("…", "x", True),
    ],
)
def test_what_a_pattern_covers(pattern: str, message: str, expected: bool) -> None:
    assert covers(pattern, message) == expected


_SHELL = """#!/bin/sh
# report "a comment"
# {{ when }}
report() {
    echo "{{ kind }}: $1" >&2
}
report "$name: $(date) {{ path | shell }} is gone"
{% if stops %}[ -e x ] || give_up 'in single ones'{% endif %}
problem="$directory/$name must be a file" fate='job held' empty=''
echo 'one: not your job'"'"'s' \\
    'two' >&2
report "${output:-udi: exited with $status}"
echo " $?"
"$python" -c 'import os
os.write(2, f"cannot be started: {error}\\n")'
"""
_PLUGIN = """
#define SITE_FAULT "; this is a fault of the site"
    return give_up("--%s needs %u" SITE_FAULT, a, b);
    refuse("one "
    "two");
    return because("%s", step.why);
    dprintf(2, "udi: %s cannot be started" SITE_FAULT "\\n", a);
    slurm_error("udi: %s", line);
    return "a line is missing";
    static step = {.why = "nothing yet"};
"""


def test_what_is_gathered_of_shell_programs_and_of_the_plugin() -> None:
    assert [text for text in of_shell(_SHELL) if re.search("[a-z]", text)] == [
        "…: … … is gone",
        "in single ones",
        "…/… must be a file",
        "job held",
        "one: not your job's two",
        "udi: exited with …",
        "cannot be started: …",
    ]
    assert [text for text in of_plugin(_PLUGIN) if re.search("[a-z]", text)] == [
        "--… needs …",
        "one two",
        "… cannot be started",
        "a line is missing",
        "nothing yet",
    ]


def test_the_plugin_speaks_by_no_other_function() -> None:
    for path in sorted((ROOT / "slurm").glob("*.c")):
        said = re.findall(
            r"\b(slurm_\w*(?:log|error|info|debug|verbose)\w*|\w*print\w*|f?puts|perror)\(", path.read_text()
        )
        assert set(said) - set(SAYING) <= {"snprintf", "vsnprintf", "asprintf"}, path


def test_other_templates_say_nothing() -> None:
    """What is gathered by the words of a shell program is all that a template can say."""
    for path in sorted(ROOT.glob("[a-z]*/**/*.j2")):
        text = path.read_text()
        assert text.startswith("#!/bin/sh") or not re.search(r"\b(echo|report|printf|logger|print)\b", text), path


NOT_OURS = {"torque.mom_priv", "torque.server_home", "slurm.spool"}
"""Directories of the workload manager's own, with files of ours that are installed, or with none."""


def places_of_leftovers() -> set[str]:
    """Keys of directories below /var and /run, and of the three whose place only a site knows."""
    places, table = {"store.path", "gateway.spool", "metrics.directory"}, ""
    for line in (ROOT / "docs/udi.toml.example").read_text().splitlines():
        if line.startswith("["):
            table = line.strip("[]")
        elif match := re.match(r'#? ?(\w+) = "(?:/var|/run)/', line):
            places.add(f"{table}.{match[1]}")
    assert len(places) > 12
    return places - NOT_OURS


def test_every_place_that_something_is_left_in_says_who_removes_it() -> None:
    places = places_of_leftovers()
    text = PAGE.read_text().partition("\n## What is removed, by whom, and when\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")][1:]
    assert sorted(places - set(re.findall(r"`([a-z]+\.\w+)`", text))) == []
    assert all((who.strip() and when.strip()) or who.strip().startswith("nobody: ") for _, who, when, _ in rows)
