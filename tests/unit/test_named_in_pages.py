"""Commands, options, settings, files, make's targets and modules that the pages name are there."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import click
import pytest
from markdown_it import MarkdownIt

from admin.seams.tables import all_tables
from admin.sitefiles.documents import commands
from manual.help_text import HelpText
from manual.tables import shown_tables
from tests.commands import commands_of
from tests.unit.checks_in_code import can_be_said
from udi import config
from udi.config import SiteConfig, shared_keys
from xcsim.cli import cli as xcsim

ROOT = Path(__file__).parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")} - {ROOT / "CHANGELOG.md"})
"""The change log names what is gone, too."""
_PROGRAM = re.compile(
    r"(?<![\w.-])(?<!-\w )(?<!(?<!bin)/)(udi(?:-gateway|-admin|-nodehealth|-run)?|xcsim) +([^\n;|&<>`]+)"
)
"""A program and its words; at the end of no path but that of a bin directory, and no option's value."""
_DOTTED = re.compile(r"([a-z_]+(?:\.\w+)*)\.(\w+)(?: = .*|\(.*\))?")
_PATH = re.compile(r"(?:\.venv/bin/)?([\w.-]+(?:/[\w.*-]+)+/?)(?:::\w+)?")
_OF_SLURM = {"slurm/spank.h"}
_MADE = {"build", "dist"}
"""What make bundle and make docs may have made, or not."""
_HOSTS = ("registry.centre:5000", "docker.io", "quay.io")
_OTHERS_FILES = set(re.findall(r"\w+", "c cfg conf csh json log md prom py sh so sock socket toml txt yml zip"))
"""Ends of the names of files, which may begin as a table is called."""


class Code:
    """What of a page is code: `spans` in its sentences, and `blocks`."""

    def __init__(self, text: str) -> None:
        tokens = MarkdownIt("commonmark").enable("table").parse(text)
        inline = [child for token in tokens for child in token.children or ()]
        self.spans = [" ".join(token.content.split()) for token in inline if token.type == "code_inline"]
        self.blocks = [token.content for token in tokens if token.type in ("code_block", "fence")]

    @property
    def lines(self) -> Iterator[str]:
        """All of it by lines of shell, without comments."""
        yield from self.spans
        for block in self.blocks:
            for line in block.replace("\\\n", " ").splitlines():
                yield re.sub(r"(^|\s)#.*", "", line)


@cache
def programs() -> dict[str, click.Command]:
    return {**commands(), "xcsim": xcsim}


@cache
def options_of_udi_run() -> frozenset[str]:
    """Those that it prints, and that by which the private sshd makes it a shell."""
    rows = HelpText.parse((ROOT / "manual/udi-run.txt").read_text()).options
    return frozenset(term.partition(" ")[0] for terms, _ in rows for term in terms.split(", ")) | {"--session"}


@cache
def settings() -> dict[str, set[str]]:
    """The keys of each table, and the tables in it."""
    found: dict[str, set[str]] = {}
    for table in shown_tables(SiteConfig, shared_keys(), all_tables()):
        name = table.name.replace(".NAME", "")
        found.setdefault(name, set()).update(key.name for key in table.keys)
        outer, _, inner = name.rpartition(".")
        found.setdefault(outer, set()).add(inner)
    return found


@cache
def checks() -> frozenset[str]:
    """The names of the checks of `udi-admin check-config`."""
    return frozenset(name for name, _ in can_be_said())


def wrong_commands(code: Code) -> Iterator[str]:
    for line in code.lines:
        for name, rest in _PROGRAM.findall(line):
            words = _words(rest.partition("$(")[0])
            first = words[0] if words else ""
            starts = r".+" if name == "udi-run" else r"[a-z][\w-]*|--(help|version|config)"
            if first not in programs() and re.fullmatch(starts, first):
                yield from (f"{name} {rest.strip()}: {said}" for said in _wrong_words(name, words))


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # the quote is closed behind what ended the command
        return text.split()


def _wrong_words(name: str, words: list[str]) -> Iterator[str]:
    if name == "udi-run":
        first = words[0].partition("=")[0]
        if first.startswith("-") and first not in options_of_udi_run():
            yield first
        return
    command, known = programs()[name], {"--help", "-h", "--version"}
    for word in words:
        known |= {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
        if word == "--" or command.context_settings.get("ignore_unknown_options"):
            return
        if (option := re.match(r"-{1,2}[a-z][a-z-]*", word)) and option[0] not in known:
            yield option[0]
        if isinstance(command, click.Group) and re.fullmatch(r"[a-z][\w-]*", word):
            inner = commands_of(command)
            if word not in inner:
                yield word
                return
            command = inner[word]


def wrong_settings(code: Code) -> Iterator[str]:
    """Keys of the configuration and, since names of packages and checks begin as tables do, theirs."""
    for span in code.spans:
        found = _DOTTED.fullmatch(span)
        known = span in checks() or (found and (_is_key(found[1], found[2]) or found[2] in _OTHERS_FILES))
        if found and not known and not _is_python(*found.groups()):
            yield span
    for block in code.blocks:
        first = next((line for line in block.splitlines() if line and not line.startswith("#")), "")
        table = re.match(r"\[+([a-z]+)", first)
        if table and table[1] in settings():
            yield from _wrong_tables(block.partition("\n$ ")[0])


def _is_key(table: str, key: str) -> bool:
    return key in settings().get(table, ())


def _is_python(outer: str, name: str) -> bool:
    """Whether there is such a module, package or member of one; also where `outer` is nothing of ours."""
    first = outer.partition(".")[0]
    if first not in settings() and not (ROOT / first / "__init__.py").exists():
        return True
    found: object = None
    for number, part in enumerate(words := f"{outer}.{name}".split("."), 1):
        found = getattr(found, part, None)
        if found is None:
            try:
                found = importlib.import_module(".".join(words[:number]))
            except ImportError:
                return False
    return True


def _wrong_tables(block: str) -> Iterator[str]:
    """What the configuration says of a block, to which what it needs beside it is added."""
    try:
        tables = tomllib.loads(block)
    except tomllib.TOMLDecodeError as error:
        yield f"{block}: {error}"
        return
    if "store" not in tables:
        block += '\n[store]\npath = "/scratch/udi"\n'
    if "registry" not in tables:
        block += "".join(f'[[registry.hosts]]\nname = "{host}"\n' for host in _HOSTS)
    yield from (error.message for error in config.errors_in(block, "udi.toml", all_tables()))


def _exists(path: str) -> bool:
    """Whether a file or directory of that name or pattern is in the repository, or in its tests."""
    return any(list(place.glob(path.rstrip("/"))) for place in (ROOT, ROOT / "tests"))


def wrong_files(code: Code) -> Iterator[str]:
    for span in code.spans:
        found = _PATH.fullmatch(span)
        first = found[1].partition("/")[0] if found else ""
        if found and first not in _MADE and (ROOT / first).is_dir() and not (span in _OF_SLURM or _exists(found[1])):
            yield span
    text = "\n".join(code.lines)
    for module in re.findall(r"python3? -m ([\w.]+)", text):
        path = ROOT / module.replace(".", "/")
        if (ROOT / module.partition(".")[0]).is_dir() and not (path.with_suffix(".py").exists() or path.is_dir()):
            yield f"python -m {module}"
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    yield from (
        f"make {name}"
        for name in re.findall(r"(?:^|[;&] |bin/)make ([a-z][a-z-]*)", text, re.MULTILINE)
        if name not in targets
    )


WRONG: dict[str, Callable[[Code], Iterator[str]]] = {
    "commands": wrong_commands,
    "settings": wrong_settings,
    "files": wrong_files,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_is_there(page: Path) -> None:
    code = Code(page.read_text())
    kinds = {**WRONG}
    if page.parent.name == "reference":  # which is about the files of others, too
        del kinds["settings"]
    wrong = [said for kind in kinds.values() for said in kind(code)]
    assert not wrong, "\n".join(wrong)


def test_contributors_know_every_target_that_tests() -> None:
    targets = re.findall(r"^(test[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert [name for name in targets if f"`make {name}`" not in page] == []


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("commands", "udi images --json", "udi image"),
        ("commands", "udi-admin chos check NAME", "udi-admin chos look"),
        ("commands", "runuser -u udi -- udi-gateway expire --dry-run", "udi-gateway expire --dry"),
        ("commands", "/opt/udi/bin/udi-run --workdir . -- ./a --b", "aprun udi-run --dir ."),
        ("commands", ".venv/bin/xcsim run --user root anything --else", ".venv/bin/xcsim go"),
        ("settings", "gateway.keep_days = 3", "gateway.keep"),
        ("settings", "registry.hosts", "registry.host"),
        ("settings", "udi.config.load(path)", "udi.config.unload"),
        ("settings", "gateway.sources.kinds", "gateway.sources.kind"),
        ("files", "udi/request.py", "udi/no.py"),
        ("files", "docs/*.example", "docs/*.none"),
        ("files", "make docs", "make doc"),
        ("files", "python -m benchmarks.setup", "python -m benchmarks.none"),
    ],
)
def test_what_is_not_there_is_found(kind: str, right: str, wrong: str) -> None:
    assert list(WRONG[kind](Code(f"a `{right}`, b\n"))) == []
    assert len(list(WRONG[kind](Code(f"a `{wrong}`, b\n")))) == 1


def test_a_table_in_a_block_is_read_as_the_configuration_is() -> None:
    assert list(wrong_settings(Code("    [gateway]\n    keep_days = 3\n"))) == []
    assert list(wrong_settings(Code("    [gateway]\n    keep_day = 3\n")))
    assert list(wrong_settings(Code("    [gateway]\n    keep_days = three\n")))
