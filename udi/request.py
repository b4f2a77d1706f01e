"""What a job asks for: the one place where a user's text comes in, and leaves as typed values.

Past `JobRequest` nothing takes a string that a user chose. How a user writes a request (variables of Torque, options of
Slurm) and what a job's id looks like is the workload manager's; what the texts mean is the same for all, and is here.
Each refusal names the value and the rule.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from udi.accounts import Account
from udi.carried import UNCHANGED, RunChanges, asked
from udi.chos import SCHEME, Environment
from udi.chosmap import permitted
from udi.config import SiteConfig, VolumesConfig
from udi.jobid import job_id
from udi.oserrors import reason
from udi.pieces import pieces
from udi.reference import ImageReference, as_taught
from udi.sitemodules import ChosenModule, choose_modules
from udi.values import Frozen
from udiroot.errors import NotPermitted, UsageError, printable
from udiroot.rules import is_forbidden, is_within

_IMAGE_ID = re.compile(r"[0-9a-f]{64}")
NO_JOB_YET = "0"
"""The job of a request that is looked at before there is one."""
_MAX_PATH = 1024
_VOLUME_GRAMMAR = "a volume is /source:/target[:ro] or /source:/target:per-node=SIZE; several are separated by ;"
_SIZE = r"([1-9][0-9]{0,15})([KMGT]?)"
_LEAST_CACHE = 16 << 20
"""Bytes: an empty file system has to fit."""


class Volume(Frozen):
    """A directory or file that the user wants in the root; both paths are absolute and normal.

    Where `per_node` is not 0, it is a file system of that many bytes which each node makes for itself in the directory
    `source`, and which is gone with the job.
    """

    source: str
    target: str
    read_only: bool = False
    per_node: int = 0

    @classmethod
    def parse(cls, text: str) -> Volume:
        """The volume that `/source:/target[:ro|:rw|:per-node=SIZE]` spells. Raises UsageError."""
        source, target, option = (*text.split(":"), "", "")[:3]
        per_node = _size(option.removeprefix("per-node="), text) if option.startswith("per-node=") else 0
        if text.count(":") not in (1, 2) or not (per_node or option in ("ro", "rw") or text.count(":") == 1):
            raise UsageError(f"not a volume: '{printable(text)}'", _VOLUME_GRAMMAR)
        return cls(_plain_path(source, text), _plain_path(target, text), option == "ro", per_node)

    def __str__(self) -> str:
        option = ":ro" if self.read_only else f":per-node={self.per_node}" if self.per_node else ""
        return f"{self.source}:{self.target}{option}"


class Pin(Frozen):
    """What a submission fixed: the reference that the user gave, and the image id that it stood for then."""

    reference: ImageReference
    id: str


class JobRequest(Frozen):
    """A job's request, complete and checked. `pin` is None where its submission fixed nothing for this reference."""

    job: str
    user: Account
    reference: ImageReference
    volumes: tuple[Volume, ...]
    pin: Pin | None = None
    modules: tuple[ChosenModule, ...] = ()
    run: RunChanges = UNCHANGED


def job_request(
    site: SiteConfig,
    job: str,
    user: Account,
    image: str,
    volumes: str = "",
    pin: Pin | None = None,
    modules: str = "",
    carried: str = "",
) -> JobRequest:
    """The request that a user's texts make: `image` as `UDI=` takes it, `volumes` as `UDI_VOLUMES=` does, and `modules`
    as `UDI_MODULES=`; `carried` is what the job carries of an environment file, where `image` names one.

    Raises UsageError for what has no meaning, NotPermitted for what the site or the rules of the root forbid, NotFound
    for a module or an environment that the site does not have, and ConfigError where its map cannot be read.
    """
    image, volumes, modules, run = asked(image, volumes, modules, carried)
    reference = site.registry.parse(as_taught(image).strip())
    wanted = parse_volumes(volumes)
    if len(wanted) > site.volumes.max_count:
        raise NotPermitted(f"{len(wanted)} volumes requested, the site allows {site.volumes.max_count}")
    for volume in wanted:
        check_volume(volume, site.volumes)
    chosen = choose_modules(site.modules, modules, user)
    _check_targets(wanted, site, chosen)
    if reference.scheme == SCHEME:
        require_room(wanted, permitted(site, reference.name, user))
    kept = pin if pin is not None and pin.reference == reference else None
    return JobRequest(job_id(job), user, reference, wanted, kept, chosen, run)


def pin_of(site: SiteConfig, image: str, carried: str, image_id: str) -> Pin | None:
    """The pin of what the user wrote, or an environment file carries, to the id that it had at submission; None where
    that is no id, as where it was not known. Raises UsageError."""
    if not _IMAGE_ID.fullmatch(image_id):
        return None
    return Pin(site.registry.parse(as_taught(asked(image, carried=carried).image).strip()), image_id)


def parse_volumes(text: str) -> tuple[Volume, ...]:
    """The volumes in a list separated by `;`; an empty piece is none. Raises UsageError."""
    return tuple(map(Volume.parse, pieces(text)))


def check_volume(volume: Volume, rules: VolumesConfig) -> None:
    """Raise NotPermitted where the site or the rules of the root forbid a volume, as far as its text can tell.

    The node checks the directory that the source really is.
    """
    if not any(is_within(volume.source, directory) for directory in rules.allowed):
        allowed = ", ".join(rules.allowed) or "none"
        raise NotPermitted(
            f"volume {printable(volume)}: source {printable(volume.source)} is not in a directory that the site allows",
            f"allowed directories: {allowed}",
        )
    if is_forbidden(volume.target):
        raise NotPermitted(f"volume {printable(volume)}: no volume may be mounted on {printable(volume.target)}")
    if volume.per_node > rules.max_per_node_bytes:
        raise NotPermitted(
            f"volume {printable(volume)}: the site allows {rules.max_per_node_bytes} bytes per node",
            "limit set by volumes.max_per_node_bytes",
        )


def require_sources(volumes: Iterable[Volume], rules: VolumesConfig) -> None:
    """Raise UsageError for a source that the caller, who must be the job's user, finds missing, as far as this host
    has the site's directories: elsewhere only the node can tell."""
    for volume in volumes:
        directory = next((each for each in rules.allowed if is_within(volume.source, each)), "")
        try:
            if not directory or not os.listdir(directory):
                continue  # a mount point without its file system
            os.stat(volume.source)
            if volume.per_node and not os.path.isdir(volume.source):
                raise UsageError(f"volume {printable(volume)}: {printable(volume.source)} is not a directory")
        except PermissionError:
            continue  # a directory that can be entered and not listed, or one that only nodes can enter
        except FileNotFoundError as error:
            if os.path.isdir(directory):
                raise UsageError(f"volume {printable(volume)}: {printable(volume.source)} does not exist") from error
        except OSError as error:
            raise UsageError(f"volume {printable(volume)}: {printable(volume.source)}: {reason(error)}") from error


def _check_targets(wanted: tuple[Volume, ...], site: SiteConfig, modules: Iterable[ChosenModule]) -> None:
    """Raise where two would be mounted at one path, or a volume would hide what the site mounts."""
    mounted = [(each.target or each.source, f"site file system {each.source}") for each in site.node.filesystems]
    mounted += [(step.target, f"site {step.kind} {step.target}") for step in site.node.steps]
    mounted += [
        (target, f"{printable(target)} of module {each.name}")
        for each in modules
        for _, target, _ in site.modules[each.name].targets()
    ]
    first: dict[str, Volume] = {}
    for volume in wanted:
        other = first.setdefault(volume.target, volume)
        if other is not volume:
            raise UsageError(f"volumes {printable(other)} and {printable(volume)} have the same target")
        hidden = next((name for target, name in mounted if is_within(target, volume.target)), "")
        if hidden:
            name, target = f"volume {printable(volume)}", printable(volume.target)
            raise NotPermitted(f"{name}: no volume may be mounted on {target}, it would hide {hidden}")


def require_room(wanted: Iterable[Volume], environment: Environment) -> None:
    """Raise NotPermitted where a volume would hide what the environment brings along."""
    for volume in wanted:
        for bind in environment.mounts:
            if is_within(bind.target, volume.target):
                name, target = f"volume {printable(volume)}", printable(volume.target)
                raise NotPermitted(
                    f"{name}: no volume may be mounted on {target}, it would hide {bind.source} of the environment"
                )


def _size(text: str, whole: str) -> int:
    """Bytes, from a number with K, M, G or T, in powers of 1024."""
    match = re.fullmatch(_SIZE, text)
    size = int(match[1]) << 10 * " KMGT".index(match[2] or " ") if match else 0
    if not _LEAST_CACHE <= size < 1 << 50:
        raise UsageError(
            f"volume '{printable(whole)}': '{printable(text)}' is not a size",
            f"a size is a number of bytes, or one with K, M, G or T; at least {_LEAST_CACHE >> 20}M",
        )
    return size


def _plain_path(part: str, whole: str) -> str:
    """An absolute path with one meaning only; a trailing slash is accepted (it changes nothing for a directory)."""
    path = part.rstrip("/") if len(part) > 1 else part
    if not path.startswith("/") or len(path) > _MAX_PATH:
        raise UsageError(f"volume '{printable(whole)}': '{printable(part)}' is not an absolute path", _VOLUME_GRAMMAR)
    if any(name in ("", ".", "..") for name in path.split("/")[1:]):
        raise UsageError(
            f"volume '{printable(whole)}': '{printable(part)}' must not contain '.', '..' or '//'", _VOLUME_GRAMMAR
        )
    if any(c < " " or c == "\x7f" for c in path):
        raise UsageError(f"volume '{printable(whole)}': '{printable(part)}' contains a control character")
    return path
