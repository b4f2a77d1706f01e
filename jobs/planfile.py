"""The plan in the image store: written and removed with the store account's rights, as root may be squashed there."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from udi import durable
from udi.accounts import store_owner
from udi.config import SiteConfig
from udi.oserrors import reason
from udiroot.errors import UpstreamFailed
from udiroot.rights import FileRights

if TYPE_CHECKING:
    from udiroot.plan import NodePlan


def new_plan_path(site: SiteConfig, job: str) -> str:
    """Where the job's plan will be, as the job host sees it; nobody can guess the name."""
    return f"{_plans(site.store.path)}/{job}.{os.urandom(16).hex()}"


def as_node_sees(site: SiteConfig, path: str) -> str:
    """The same file, as a compute node sees it."""
    return f"{_plans(site.node_store_path)}/{os.path.basename(path)}"


def _plans(store: str) -> str:
    """Their directory in a store."""
    from udi.store import StoreLayout  # a teardown knows its plan's path

    return StoreLayout(store).plans


def write_plan(site: SiteConfig, path: str, plan: NodePlan) -> str:
    """Write the plan, complete and on the disk, and return the sha256 of its bytes. Raises UpstreamFailed."""
    from udiroot.digest import sha256

    raw = plan.text().encode("ascii")
    try:
        with FileRights(*store_owner(site.store.account)):
            _make_directory(os.path.dirname(path))
            durable.write(path, raw, mode=0o400, alone=True)  # its name is this start's alone
    except OSError as error:
        raise UpstreamFailed(f"the plan cannot be written to the image store: {path}: {reason(error)}") from error
    return sha256(raw)


def remove_plan(site: SiteConfig, path: str) -> None:
    """Remove the plan, and what a start that was killed left of it; none is fine. Raises UpstreamFailed."""
    try:
        with FileRights(*store_owner(site.store.account)):
            for each in (durable.unfinished(path), path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(each)
    except OSError as error:
        raise UpstreamFailed(f"the plan cannot be removed from the image store: {path}: {reason(error)}") from error


def _make_directory(path: str) -> None:
    """0711: whoever knows a name may open it, nobody can list them."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o711)
        os.chmod(path, 0o711)  # noqa: S103 - names are secrets there
