"""docs/coming-from.md: each command of ours is one that `udi` has, and each line about another tool has a source."""

from __future__ import annotations

import re

import outside.cli  # noqa: F401 - adds its commands
from gateway.client.cli import cli
from tests.pages import DOCS


def test_the_commands_exist() -> None:
    named = set(re.findall(r"(?:`|^\$ )udi (\w+)", (DOCS / "coming-from.md").read_text(), re.MULTILINE))
    assert {"pull", "images", "rm", "login", "modules", "shell"} <= named
    assert named <= set(cli.commands)


def test_each_line_about_another_tool_has_a_source() -> None:
    text = (DOCS / "coming-from.md").read_text()
    links = dict(re.findall(r"^\[([\w-]+)\]: (https://\S+)$", text, re.MULTILINE))
    rows = re.findall(r"^\| (?:Shifter|Sarus|Apptainer|podman-hpc) \|.*\| (.*) \|$", text, re.MULTILINE)
    assert len(rows) > 20
    assert [row for row in rows if "][" not in row] == []
    assert set(re.findall(r"\]\[([\w-]+)\]", text)) == set(links)
