"""A file that a site needs installed, and the rendering of such files from templates.

Each workload manager and each machine brings its own files, with templates in its own package. Each value that a shell
reads is quoted. A complete file is managed by shifter-xc; of a file that belongs to the site or to Cray, one marked
block or one line is.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from functools import cache
from typing import Literal

import jinja2

from udi.config import SiteConfig
from udi.values import Frozen
from udi.version import VERSION
from udiroot.errors import ConfigError, printable

MARK = "shifter-xc"
"""The name in the marks around our block of a file."""
_MARK_LINE = re.compile(r"""(?:#|\.\\") installed by shifter-xc [0-9]+\.[0-9]+\S*; local changes are overwritten""")
_FIRST = ("#!", "#compdef ")
"""How lines begin that the kernel, or zsh, reads as the first of a file only."""
_ROFF_COMMENT = '.\\"'
_MARKED_WITHIN = 3
"""Lines of a file among which its mark is."""


class SiteFile(Frozen):
    """A file, and how it goes in: complete, as a marked block of a file, or as the one line that begins with `key`.
    A key of several words names a file of ours: whatever else its line says, it is ours.

    Where the site has a file or line of its own in its place, that stays. `beside` is then the path of a complete file,
    `call` the line of a shell script that runs it, and `advice` what the site must do so that ours is used too. Without
    `advice` there is no way but to change theirs, which `remedy` says how, if not by moving it. `takes_over` is the one
    line of the site's own that ours replaces, since ours does what that did; it comes back when ours is removed.
    """

    path: str
    mode: int
    text: str
    kind: Literal["complete", "block", "line"] = "complete"
    key: str = ""
    beside: str = ""
    advice: str = ""
    call: str = ""
    remedy: str = ""
    takes_over: str = ""


def marked(text: str) -> str:
    """The text of a complete file with the line by which we recognize it: as the first, or after a first one that must
    stay it. A man page has comments of its own."""
    sign = _ROFF_COMMENT if text.startswith(_ROFF_COMMENT) else "#"
    line = f"{sign} installed by shifter-xc {VERSION}; local changes are overwritten\n"
    if not text.startswith(_FIRST):
        return line + text
    first, _, rest = text.partition("\n")
    return f"{first}\n{line}{rest}"


def is_ours(text: str) -> bool:
    """Whether a complete file was installed by shifter-xc, in any version."""
    return any(_MARK_LINE.fullmatch(line) for line in text.split("\n", _MARKED_WITHIN)[:_MARKED_WITHIN])


@cache
def _environment(package: str) -> jinja2.Environment:
    """Where the templates of a package are; it compiles each of them once, though many files are made of some."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "site" if package == "templates" else "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - shell scripts and plain text; what a shell reads goes through `shell`
    )
    environment.filters["shell"] = lambda value: shlex.quote(str(value))
    return environment


class Renderer:
    """Renders templates with the values that all of them share."""

    def __init__(self, site: SiteConfig, config_path: str, python: str = "") -> None:
        """`config_path` is the configuration that installed programs read; `python`, if not ours, runs them."""
        self.common: Mapping[str, object] = {
            "python": python or sys.executable,
            "config": os.path.abspath(config_path),
            "bin": site.install.bin,
            "state": site.jobs.state,
            "root": site.node.root,
            "run": site.node.run,
        }

    def __call__(self, package: str, template: str, **values: object) -> str:
        """`template` of a room's own directory `templates`, or of `templates/site` for what no one room brings.

        Raises ConfigError where it cannot be rendered.
        """
        try:
            return _environment(package).get_template(f"{template}.j2").render({**self.common, **values})
        except jinja2.TemplateError as error:
            raise ConfigError(f"template {package}/{template}.j2 cannot be rendered: {printable(error)}") from error

    def program(self, name: str, module: str, function: str = "main") -> str:
        """The script that starts `function` of `module` as the program `name`."""
        return self("templates", "program", name=name, module=module, function=function)
