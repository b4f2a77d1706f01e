"""What a job asks for: the one place where a user's text comes in, and leaves as typed values.

Past `JobRequest` nothing takes a string that a user chose. How a user writes a request (variables of Torque, options of
Slurm) and what a job's id looks like is the workload manager's; what the texts mean is the same for all, and is here.
Each refusal names the value and the rule.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from udi.accounts import Account
from udi.config import SiteConfig, VolumesConfig
from udi.reference import ImageReference
from udiroot.errors import NotPermitted, UsageError, printable
from udiroot.rules import is_forbidden, is_within

_JOB_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.\[\]-]{0,119}")
_MAX_PATH = 1024
_VOLUME_GRAMMAR = "a volume is /source:/target[:ro]; several are separated by ;"


@dataclass(frozen=True)
class Volume:
    """A directory that the user wants in the root; both paths are absolute and normal."""

    source: str
    target: str
    read_only: bool = False

    @classmethod
    def parse(cls, text: str) -> Volume:
        """The volume that `/source:/target[:ro]` spells. Raises UsageError."""
        parts = text.split(":")
        if len(parts) == 3 and parts[2] in ("ro", "rw"):
            mode = parts.pop()
        elif len(parts) == 2:
            mode = "rw"
        else:
            raise UsageError(f"not a volume: '{printable(text)}'", _VOLUME_GRAMMAR)
        source, target = (_plain_path(part, text) for part in parts)
        return cls(source, target, mode == "ro")

    def __str__(self) -> str:
        return f"{self.source}:{self.target}" + (":ro" if self.read_only else "")


@dataclass(frozen=True)
class Pin:
    """What a submission fixed: the reference that the user gave, and the image id that it stood for then."""

    reference: ImageReference
    id: str


@dataclass(frozen=True)
class JobRequest:
    """A job's request, complete and checked. `pin` is None where its submission fixed nothing for this reference."""

    job: str
    user: Account
    reference: ImageReference
    volumes: tuple[Volume, ...]
    pin: Pin | None = None


def job_request(
    site: SiteConfig, job: str, user: Account, image: str, volumes: str = "", pin: Pin | None = None
) -> JobRequest:
    """The request that a user's texts make: `image` as `UDI=` takes it, `volumes` as `UDI_VOLUMES=` does.

    Raises UsageError for what has no meaning, NotPermitted for what the site or the rules of the root forbid.
    """
    reference = site.registry.parse(image.strip())
    wanted = parse_volumes(volumes)
    if len(wanted) > site.volumes.max_count:
        raise NotPermitted(f"{len(wanted)} volumes requested, the site allows {site.volumes.max_count}")
    for volume in wanted:
        check_volume(volume, site.volumes)
    kept = pin if pin is not None and pin.reference == reference else None
    return JobRequest(job_id(job), user, reference, wanted, kept)


def job_id(text: str) -> str:
    """A batch job's id, as any workload manager may write it and as a file name and a node's command line can hold it.

    A workload manager's own grammar is stricter. Raises UsageError.
    """
    if not _JOB_ID.fullmatch(text):
        raise UsageError(f"not a job id: '{printable(text)}'")
    return text


def parse_volumes(text: str) -> tuple[Volume, ...]:
    """The volumes in a list separated by `;`; an empty piece is none. Raises UsageError."""
    return tuple(Volume.parse(piece.strip()) for piece in text.split(";") if piece.strip())


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
