"""Each command of ours in docs/coming-from.md is one that `udi` has."""

from __future__ import annotations

import re

import outside.cli  # noqa: F401 - adds its commands
from gateway.client.cli import cli
from tests.pages import DOCS


def test_the_commands_exist() -> None:
    named = set(re.findall(r"`udi (\w+)", (DOCS / "coming-from.md").read_text()))
    assert {"pull", "images", "rm", "login", "modules", "shell"} <= named
    assert named <= set(cli.commands)
