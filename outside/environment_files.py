"""`udi env`: what an environment file amounts to, for the one who asks, and everything that is wrong with it."""

from __future__ import annotations

import os
from typing import NamedTuple

from gateway.client import client
from udi.accounts import account_of_uid
from udi.carried import Carried, Record
from udi.config import SiteConfig, load
from udi.pieces import pieces
from udi.reference import as_taught
from udi.request import NO_JOB_YET, job_request, require_sources
from udi.runfile import examined, read_run_file
from udiroot.errors import NotFound, UdiError, printable

_LOOKUP_SECONDS = 10.0


class Amounts(NamedTuple):
    """What a job submitted now would get; `id` is empty where the image is not in the store, or on no site's host."""

    image: str
    id: str
    volumes: tuple[str, ...]
    modules: tuple[str, ...]
    environment: tuple[Record, ...]
    workdir: str
    entrypoint: tuple[str, ...] | None
    args: tuple[str, ...] | None


def examine(config_path: str, file: str) -> tuple[Carried | None, tuple[str, ...]]:
    """What the file says, and all that is wrong with it, on this site where the host has a site's configuration."""
    found, wrong = examined(file, os.environ)
    if found is None or not os.path.exists(config_path):
        return found, wrong
    return found, tuple(f"{printable(file)}: {line}" for line in _refusals(load(config_path), found))


def shown(config_path: str, file: str) -> Amounts:
    """Raises UsageError and NotPermitted as a submission does, UpstreamFailed where the gateway does not answer."""
    found = read_run_file(file, os.environ)
    image, identity = as_taught(found.image).strip(), ""
    if os.path.exists(config_path):
        site = load(config_path)
        user = account_of_uid(os.getuid())
        image = str(job_request(site, NO_JOB_YET, user, found.image, found.volumes, modules=found.modules).reference)
        try:
            identity = client.lookup(site, image, _LOOKUP_SECONDS)
        except NotFound:
            identity = ""  # a job would have it pulled
    run = found.run
    volumes, modules = pieces(found.volumes), pieces(found.modules)
    return Amounts(image, identity, volumes, modules, run.environment, run.workdir, run.entrypoint, run.args)


def as_text(found: Amounts) -> str:
    """For people, a line each."""
    lines = [("image", found.image), ("id", found.id or "not in the store")]
    lines += [("volume", each) for each in found.volumes] + [("module", each) for each in found.modules]
    lines += [(keyword, text) for keyword, text in found.environment]
    lines += [("workdir", found.workdir)] if found.workdir else []
    for name, words in (("entrypoint", found.entrypoint), ("args", found.args)):
        lines += [(name, " ".join(words) or "none")] if words is not None else []
    return "\n".join(f"{name:10}  {printable(text)}" for name, text in lines)


def _refusals(site: SiteConfig, found: Carried) -> list[str]:
    """What the site refuses: each volume and each module by itself, then all together."""
    user, wrong = account_of_uid(os.getuid()), list[str]()
    trials = [(volume, "") for volume in pieces(found.volumes)]
    trials += [("", module) for module in pieces(found.modules)]
    for volumes, modules in (*trials, (found.volumes, found.modules)):
        try:
            request = job_request(site, NO_JOB_YET, user, found.image, volumes, modules=modules)
            require_sources(request.volumes, site.volumes)
        except UdiError as error:
            line = f"{error.message} ({error.hint})" if error.hint else error.message
            if line not in wrong:
                wrong.append(line)
    return wrong
