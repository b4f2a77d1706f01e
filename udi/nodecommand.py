"""The shell lines that reach a node.

`xtxqtcmd` takes one argument that a shell on the node parses again (cray-reference X1, X5), in an initramfs that has
neither Python nor libraries; ssh does the same. So each line starts Python by the configured command (the shared root's
own dynamic loader) on the zip, and every word is quoted. No user text is among them: a job id has its grammar, the rest
is our own or configured.
"""

from __future__ import annotations

import re
import shlex

from udi.config import SiteConfig
from udi.nodezip import start_line
from udi.request import job_id
from udiroot.errors import ConfigError, printable

_NONCE = re.compile(r"[0-9a-f]{16,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLAIN_WORD = re.compile(r"[A-Za-z0-9/._:@+=,~-]+")


def setup_command(site: SiteConfig, identity_file: str, plan_path: str, sha256: str, nonce: str) -> str:
    """`setupRoot` with the plan at `plan_path` (as the node sees it), whose bytes have `sha256`.

    `identity_file` is where the node finds its identity (`udi.platform.Machine.identity_file`).
    """
    _require(_SHA256, sha256, "sha256")
    _require(_NONCE, nonce, "nonce")
    words = ("--run", site.node.run, "--nid-file", identity_file, plan_path, sha256, nonce)
    return _line(site, "setupRoot", *words)


def teardown_command(site: SiteConfig, identity_file: str, job: str, nonce: str) -> str:
    """`unsetupRoot` for `job`."""
    _require(_NONCE, nonce, "nonce")
    deadline = ("--deadline", str(site.node.deadline))
    return _line(site, "unsetupRoot", *_paths(site, identity_file), *deadline, "--job", job_id(job), nonce)


def check_command(site: SiteConfig, identity_file: str, nonce: str = "") -> str:
    """The cleanliness check: one line for a person, or with `nonce` a NodeReport."""
    words = ("--nonce", nonce) if nonce else ()
    return _line(site, "check", *_paths(site, identity_file), *words, module="nodehealth.check")


def _paths(site: SiteConfig, identity_file: str) -> tuple[str, ...]:
    return ("--root", site.node.root, "--run", site.node.run, "--nid-file", identity_file)


def _line(site: SiteConfig, *words: str, module: str = "udiroot.commands") -> str:
    archive = site.node.zip
    _require(_PLAIN_WORD, archive, "node.zip")
    start = start_line(archive, module)
    return " ".join(shlex.quote(word) for word in (*site.node.python, "-I", "-S", "-c", start, *words))


def _require(grammar: re.Pattern[str], word: str, what: str) -> None:
    if not grammar.fullmatch(word):
        raise ConfigError(f"{what} '{printable(word)}' cannot be part of a node's command line")
