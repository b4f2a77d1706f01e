"""The node software of each version that was installed, as long as jobs may run that it set up (`udi.software`)."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from udi import durable, nodezip
from udi.config import SiteConfig
from udi.interpreters import link_of, own
from udi.oserrors import reason
from udi.software import is_version, versioned
from udiroot.errors import UpstreamFailed

_KEPT_DAYS = 90
"""How long a version is kept after another took its place: longer than any job runs. Other hosts have jobs of it too,
whose states this one does not see."""


def install_software(site: SiteConfig, path: str, programs: Mapping[str, bytes]) -> list[str]:
    """Build the node software, put it beside `path` under the name of its content, and make `path` a link to it; just
    before, that to the interpreter of the bundle that this process is of, if it is of one.

    What was there before stays for the jobs that it set up; what has been out of use for long is removed. The paths
    that changed. Raises ConfigError, UpstreamFailed.
    """
    with tempfile.TemporaryDirectory() as directory:
        nodezip.build(site, f"{directory}/udi.zip", programs)
        content = Path(directory, "udi.zip").read_bytes()
    target = versioned(os.path.basename(path), hashlib.sha256(content).hexdigest())
    file = f"{os.path.dirname(path)}/{target}"
    try:
        durable.make_public_directory(os.path.dirname(path))
        is_new = not os.path.isfile(file) or Path(file).read_bytes() != content
        if is_new:
            durable.write(file, content, mode=0o644)
        link, version = path.removesuffix(site.install.zip) + link_of(site), own(site)
        is_other = bool(version) and os.path.islink(link) and _link(link, version)
        is_moved = _link(path, target)
        _remove_old(path, target)
    except OSError as error:
        raise UpstreamFailed(f"{error.filename or path} cannot be written: {reason(error)}") from error
    return [file] * is_new + [link] * is_other + [path] * is_moved


def versions(path: str) -> list[str]:
    """The files of all versions beside `path`."""
    directory, name = os.path.split(path)
    try:
        found = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    return [f"{directory}/{file}" for file in found if is_version(name, file)]


def _link(path: str, target: str) -> bool:
    """Make `path` a link to `target`, atomically; False where it is one already. The version that it led to is marked
    as in use until now."""
    if os.path.islink(path):
        before = os.readlink(path)
        if before == target:
            return False
        if os.path.isfile(path):
            os.utime(path)
    unfinished = f"{os.path.dirname(path)}/{durable.TEMPORARY}{secrets.token_hex(12)}"
    os.symlink(target, unfinished)
    os.rename(unfinished, path)
    durable.sync_directory(os.path.dirname(path))
    return True


def _remove_old(path: str, target: str) -> None:
    oldest = time.time() - _KEPT_DAYS * 86400
    for file in versions(path):
        if os.path.basename(file) != target and os.stat(file).st_mtime < oldest:
            os.unlink(file)
