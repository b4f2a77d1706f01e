"""The man pages hold what the commands and the settings have, and are read without a warning."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from admin.seams.tables import all_tables
from admin.sitefiles.documents import commands, pages, roff_of
from manual.help_text import HelpText
from manual.page import Page
from manual.tables import shown_tables
from tests.commands import commands_of
from udi.config import SiteConfig, shared_keys

ROOT = Path(__file__).parents[2]
PAGES = {page.name: page for page in pages()}


def shown(page: Page, directory: Path) -> str:
    """The page as man shows it, on one line."""
    if not shutil.which("man"):
        pytest.skip("needs man-db")
    file = directory / f"{page.name}.{page.number}"
    file.write_text(roff_of(page))
    done = subprocess.run(
        ["man", "-l", "--ascii", file],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "1000"},
    )
    return " ".join(done.stdout.split())


def leaves(command: click.Command, words: str) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return [(words, command)]
    return [leaf for name, each in commands_of(command).items() for leaf in leaves(each, f"{words} {name}")]


@pytest.mark.parametrize("name", commands())
def test_every_command_option_and_argument_is_on_the_page(name: str, tmp_path: Path) -> None:
    text = shown(PAGES[name], tmp_path)
    for words, command in leaves(commands()[name], name):
        assert words in text
        for param in command.params:
            for option in param.opts if isinstance(param, click.Option) else ():
                assert option in text, (words, option)
        assert " ".join((command.help or "").replace("\b", "").split()) in text, words


def test_every_setting_is_on_the_page(tmp_path: Path) -> None:
    text = shown(PAGES["udi.toml"], tmp_path)
    for table in shown_tables(SiteConfig, shared_keys(), all_tables()):
        assert table.heading in text
        for key in table.keys:
            assert f" {key.name} {' '.join(key.help.split())}" in text, key.name


def test_the_page_of_udi_run_is_made_from_what_it_prints(tmp_path: Path) -> None:
    program = ROOT / ".cache/udi-run/udi-run"
    if not program.exists():
        pytest.skip("needs udi-run (make udi-run)")
    said = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    assert (ROOT / "manual/udi-run.txt").read_text() == said
    text = shown(PAGES["udi-run"], tmp_path)
    for option, words in HelpText.parse(said).options:
        assert f"{option} {words}" in text


@pytest.mark.parametrize("name", PAGES)
def test_neither_mandoc_nor_groff_warns(name: str, tmp_path: Path) -> None:
    file = tmp_path / "page"
    file.write_text(roff_of(PAGES[name]))
    for argv in (["mandoc", "-Tlint", "-Wall", str(file)], ["groff", "-ww", "-man", "-Tutf8", "-z", str(file)]):
        if not shutil.which(argv[0]):
            pytest.skip(f"needs {argv[0]}")
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_other_pages_exist() -> None:
    known = {f"{page.name}({page.number})" for page in PAGES.values()}
    for page in PAGES.values():
        assert set(page.see_also) <= known
        assert re.fullmatch(r"[^A-Z].*[^.]", page.purpose)
