"""The shell lines that reach a node.

`xtxqtcmd` takes one argument that a shell on the node parses again (cray-reference X1, X5), in an initramfs that has
neither Python nor libraries; ssh does the same. So each line starts Python by the configured command (the shared root's
own dynamic loader) on the zip, and every word is quoted. No user text is among them: a job id has its grammar, the rest
is our own or configured.

A fan-out must know whether anything of the software ran on a node that made no report. So there the node's own shell
runs Python and prints how it ended:

    UDI-EXIT <nonce> <identity> <exit code> started|not-started <words>

`started` means that Python found and loaded the software and was about to call it, which Python signs on stderr; words
are what stderr held. Whatever prevents a start (no loader, no Python, no zip, a library that is missing, a crash of the
interpreter) is before that sign. The line is not printed where the software started and exited with 0.

What sets a job up also takes it down, although another version may be installed, and the configuration changed, while
it runs. So each line names the node software by its own file (`udi.software`), and the Python that it was compiled for
(`udi.interpreters`), and the one for the teardown is made at
set-up and kept with the job.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from udi.config import SiteConfig
from udi.interpreters import for_software
from udi.jobid import job_id
from udi.nodestart import start_line
from udi.software import current, here
from udiroot.errors import ConfigError, printable

_NONCE = r"[0-9a-f]{16,64}"
_SHA256 = r"[0-9a-f]{64}"
_IDS = r"[0-9]{1,10}(?:,[0-9]{1,10})+"
_HEX = r"[0-9a-f]{4,16384}"
_PLAIN_WORD = r"[A-Za-z0-9/._:@+=,~-]+"
_COMMANDS = "udiroot.commands"
_PROBE = "nodehealth.probe"
_NO_NONCE = "0" * 32
"""Where a line that is kept has its nonce: each run of it gets its own."""
EXIT_MARK = "UDI-EXIT"
"""How the line begins by which a node's shell reports the end of a command."""
STARTED, NOT_STARTED = "started", "not-started"
START_SIGN = "UDI-STARTED"
"""What Python prints to stderr before it calls the software."""
_WATCH = (
    "read -r n rest 2>/dev/null <{identity}; "
    '{{ e=$("$@" 2>&1 >&3 3>&-); c=$?; }} 3>&1; '
    "case $e in *{sign}*) s=started ;; *) s=not-started ;; esac; "
    'if [ "$s $c" != "started 0" ]; then '
    "set -f; set -- $e; [ $# -le 60 ] || shift $(($# - 60)); "
    'echo {mark} {nonce} "${{n:--}}" "$c" "$s" "$*"; fi; exit "$c"'
)
"""stdout is the node's own, stderr is kept: its last 60 words. Only what every POSIX shell has built in is used."""


def setup_command(site: SiteConfig, identity_file: str, plan_path: str, sha256: str, nonce: str) -> str:
    """`setupRoot` with the plan at `plan_path` (as the node sees it), whose bytes have `sha256`.

    `identity_file` is where the node finds its identity (`udi.platform.Machine.identity_file`).
    """
    return _watched(site, identity_file, nonce, *_setup(site, identity_file, plan_path, sha256, nonce))


def teardown_command(site: SiteConfig, identity_file: str, job: str, nonce: str) -> str:
    """`unsetupRoot` for `job`."""
    return _watched(site, identity_file, nonce, *_teardown(site, identity_file, job, nonce))


def kept_teardown(site: SiteConfig, identity_file: str, job: str) -> str:
    """`unsetupRoot` for `job`, to be kept with it; `with_nonce` makes it a command line."""
    return teardown_command(site, identity_file, job, _NO_NONCE)


def with_nonce(kept: str, nonce: str) -> str:
    """The line that was kept, or word of one, for one run."""
    _require(_NONCE, nonce, "nonce")
    return kept.replace(_NO_NONCE, nonce)


def setup_here(site: SiteConfig, plan_path: str, sha256: str, nonce: str) -> tuple[str, ...]:
    """`setupRoot` as a command of this host, which is the node and whose host name is its identity."""
    return _python(site, _COMMANDS, *_setup(site, "", plan_path, sha256, nonce))


def teardown_here(site: SiteConfig, job: str, nonce: str = _NO_NONCE) -> tuple[str, ...]:
    """`unsetupRoot` for `job`, as a command of this host; without `nonce`, to be kept."""
    return _python(site, _COMMANDS, *_teardown(site, "", job, nonce))


def enter_command(
    site: SiteConfig, identity_file: str, job: str, ids: str, words: str, seconds: int, nonce: str
) -> str:
    """`enterRoot` for `job`: a command as `udiroot.enter` takes it, which has `seconds`."""
    return _watched(site, identity_file, nonce, *_enter(site, identity_file, job, ids, words, seconds, nonce))


def enter_here(site: SiteConfig, job: str, ids: str, words: str, seconds: int, nonce: str) -> tuple[str, ...]:
    """The same, as a command of this host."""
    return _python(site, _COMMANDS, *_enter(site, "", job, ids, words, seconds, nonce))


def check_command(site: SiteConfig, identity_file: str, nonce: str = "") -> str:
    """The cleanliness check: one line for a person, or with `nonce` a NodeReport.

    The former is written into a file that stays, so it goes by the link to the software of now.
    """
    words = ("check", *_paths(site, identity_file))
    if not nonce:
        return _quoted(_python_of(site.node.python, site.node.zip, "nodehealth.check", *words))
    return _watched(site, identity_file, nonce, *words, "--nonce", nonce, module="nodehealth.check")


def probe_command(site: SiteConfig, identity_file: str, facts: Mapping[str, str], nonce: str) -> str:
    """What a node has of what jobs need, as a NodeReport whose words are facts; `facts` are what it is told for that
    (`nodehealth.probe`)."""
    return _watched(site, identity_file, nonce, *_probe(site, identity_file, facts, nonce), module=_PROBE)


def probe_here(site: SiteConfig, facts: Mapping[str, str], nonce: str) -> tuple[str, ...]:
    """The same as a command of this host, which is the node."""
    _require(_NONCE, nonce, "nonce")
    return _python(site, _PROBE, *_probe(site, "", facts, nonce))


def _probe(site: SiteConfig, identity_file: str, facts: Mapping[str, str], nonce: str) -> tuple[str, ...]:
    modules = (os.path.normpath(os.path.join(site.node.module_path, name)) for name in site.node.modules)
    told = (*(f"{name}={value}" for name, value in facts.items()), *(f"module={path}" for path in modules))
    return ("probe", *_paths(site, identity_file), "--nonce", nonce, f"zip={site.node.zip}", *told)


def _setup(site: SiteConfig, identity_file: str, plan_path: str, sha256: str, nonce: str) -> tuple[str, ...]:
    _require(_SHA256, sha256, "sha256")
    _require(_NONCE, nonce, "nonce")
    return ("setupRoot", "--run", site.node.run, "--nid-file", identity_file, plan_path, sha256, nonce)


def _teardown(site: SiteConfig, identity_file: str, job: str, nonce: str) -> tuple[str, ...]:
    _require(_NONCE, nonce, "nonce")
    deadline = ("--deadline", str(site.node.deadline))
    shared = ("--shared", "yes" if site.node.shared else "no")
    return ("unsetupRoot", *_paths(site, identity_file), *deadline, *shared, "--job", job_id(job), nonce)


def _enter(
    site: SiteConfig, identity_file: str, job: str, ids: str, words: str, seconds: int, nonce: str
) -> tuple[str, ...]:
    _require(_NONCE, nonce, "nonce")
    _require(_IDS, ids, "ids")
    _require(_HEX, words, "command")
    deadline = ("--deadline", str(seconds))
    return ("enterRoot", *_paths(site, identity_file), *deadline, "--job", job_id(job), ids, words, nonce)


def _paths(site: SiteConfig, identity_file: str) -> tuple[str, ...]:
    return ("--root", site.node.root, "--run", site.node.run, "--nid-file", identity_file)


def _watched(site: SiteConfig, identity_file: str, nonce: str, *words: str, module: str = _COMMANDS) -> str:
    """The line for a fan-out: `/bin/sh` runs Python, so that any login shell of a node can start it."""
    _require(_NONCE, nonce, "nonce")
    identity = _quoted([identity_file or "/dev/null"])
    script = _WATCH.format(identity=identity, sign=START_SIGN, mark=EXIT_MARK, nonce=nonce)
    return _quoted(("/bin/sh", "-c", script, "udi", *_python(site, module, *words, sign=START_SIGN)))


def _quoted(words: Sequence[str]) -> str:
    """The words as a shell takes them."""
    import shlex  # an epilogue has its line from the set-up

    return shlex.join(words)


def _python(site: SiteConfig, module: str, *words: str, sign: str = "") -> tuple[str, ...]:
    archive = current(site)
    python = site.node.python if archive == site.node.zip else for_software(site, here(site, archive))
    return _python_of(python, archive, module, *words, sign=sign)


def _python_of(python: Sequence[str], archive: str, module: str, *words: str, sign: str = "") -> tuple[str, ...]:
    _require(_PLAIN_WORD, archive, "node.zip")
    return (*python, "-I", "-S", "-c", start_line(archive, module, sign), *words)


def _require(grammar: str, word: str, what: str) -> None:
    if not re.fullmatch(grammar, word):
        raise ConfigError(f"{what} '{printable(word)}' cannot be part of a node's command line")
