"""What goes with the programs for people: man pages, and completion for bash, zsh and fish.

Both are made when they are installed, by the programs that are installed: there is no second text to keep.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import click

from admin.seams.tables import all_tables
from admin.sitefiles.hook_pages import hook_pages
from manual.commands import described, exit_status, synopsis
from manual.completion import completion_of_options, completion_script
from manual.help_text import HelpText
from manual.page import Definitions, Literal, Page, Paragraph, Section
from manual.roff import as_roff
from manual.settings import settings_sections
from manual.tables import shown_tables
from udi.completion import SHELLS
from udi.config import DEFAULT_PATH, SiteConfig, shared_keys
from udi.sitefiles import SiteFile
from udi.version import VERSION

_DATE = "2026-11-26"
"""Of the pages; that of the last release, in whose checklist it is."""


@dataclass(frozen=True)
class _Program:
    """A program of click commands: the module that has its `cli`, the section of its page, and what it is for."""

    module: str
    number: int
    purpose: str
    see_also: tuple[str, ...]


_PROGRAMS = {
    "udi": _Program("outside.cli", 1, "container images for batch jobs", ("udi-run(1)", "udi-gateway(8)")),
    "udi-gateway": _Program("gateway.service.cli", 8, "the image gateway", ("udi(1)", "udi-admin(8)", "udi.toml(5)")),
    "udi-admin": _Program(
        "admin.cli",
        8,
        "administer shifter-xc on a job host",
        ("udi(1)", "udi-gateway(8)", "udi-nodehealth(8)", "udi-prologue(8)", "udi.toml(5)"),
    ),
    "udi-nodehealth": _Program(
        "admin.nodehealth_cli",
        8,
        "check compute nodes, and take them out of service",
        ("udi-admin(8)", "udi.toml(5)"),
    ),
}


def commands() -> Mapping[str, click.Command]:
    """The commands of each program. A module is found by its name, since one of them installs these files."""
    return {name: importlib.import_module(program.module).cli for name, program in _PROGRAMS.items()}


def pages() -> tuple[Page, ...]:
    """All man pages."""
    programs = (_program_page(name, command) for name, command in commands().items())
    return (*programs, _udi_run_page(), *hook_pages(), _settings_page())


def roff_of(page: Page) -> str:
    """The text of a page's file."""
    return as_roff(page, f"shifter-xc {VERSION}", _DATE)


def completions() -> Mapping[str, str]:
    """The script of each program for each shell, by its path below the directory of shared data."""
    udi_run = _udi_run_help()
    found = {}
    for shell in SHELLS:
        for name, command in commands().items():
            found[shell.path(name)] = completion_script(shell, command, name)
        found[shell.path("udi-run")] = completion_of_options(shell, "udi-run", udi_run.options)
    return found


def document_files(site: SiteConfig) -> list[SiteFile]:
    """Man pages and completion where the site has its shared data."""
    return [SiteFile(f"{site.install.share}/{path}", 0o644, text) for path, text in _documents().items()]


@cache
def _documents() -> Mapping[str, str]:
    """The text of each document by its path below the directory of shared data; no site has its own."""
    return {**{f"man/{page.file}": roff_of(page) for page in pages()}, **completions()}


def _program_page(name: str, command: click.Command) -> Page:
    program = _PROGRAMS[name]
    files = Section("Files", (Definitions(((DEFAULT_PATH, "The site's configuration, udi.toml(5)."),)),))
    sections = (*described(name, command), exit_status(), files)
    return Page(name, program.number, program.purpose, synopsis(name, command), sections, program.see_also)


def _udi_run_help() -> HelpText:
    """What udi-run prints for --help."""
    return HelpText.parse(resources.files("manual").joinpath("udi-run.txt").read_text())


def _udi_run_page() -> Page:
    found = _udi_run_help()
    return Page("udi-run", 1, "run a program inside a job's image", found.usage, found.sections(), ("udi(1)",))


def _settings_page() -> Page:
    description = Section(
        "Description",
        (
            Paragraph(
                "The configuration of shifter-xc is one file in the format TOML. It must be owned by root and writable"
                " by nobody else. An unknown key is an error. udi-admin check-config validates it, and udi-admin"
                " example-config prints one with every key and its default."
            ),
            Paragraph("The shortest one that is valid names the image store:"),
            Literal('[store]\npath = "/scratch/udi"'),
        ),
    )
    tables = settings_sections(shown_tables(SiteConfig, shared_keys(), all_tables()))
    return Page(
        "udi.toml",
        5,
        "the site's configuration of shifter-xc",
        (DEFAULT_PATH,),
        (description, Section("Keys", (), tables)),
        ("udi-admin(8)", "udi-gateway(8)"),
    )
