"""What a job asks for: the one place where a user's text comes in, and leaves as typed values.

Past `JobRequest` nothing takes a string that a user chose. The texts come from the job's variables (`UDI`,
`UDI_VOLUMES`) and, for the pin, from a comment line of its script; all of them are user text, and each refusal names
the value and the rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from udi.accounts import Account
from udi.config import VolumesConfig
from udi.reference import ImageReference
from udiroot.errors import NotPermitted, UsageError, printable
from udiroot.rules import is_forbidden, is_within

IMAGE_VARIABLE = "UDI"
VOLUMES_VARIABLE = "UDI_VOLUMES"
PIN_PREFIX = "#UDI pinned "
"""Begins the script line by which the submit filter fixes the image that a tag stood for: reference, blank, id."""

_JOB_ID = re.compile(r"[0-9]{1,12}(?:\[[0-9]{0,8}\])?(?:\.[A-Za-z0-9][A-Za-z0-9.-]{0,100})?")
_ID = re.compile(r"[0-9a-f]{64}")
_MAX_PATH = 1024
_PIN_SEARCH_BYTES = 1 << 20
_VOLUME_GRAMMAR = "UDI_VOLUMES is /source:/target[:ro], several of them separated by ;"


@dataclass(frozen=True)
class Volume:
    """A folder that the user wants in the root; both paths are absolute and normal."""

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
            raise UsageError(f"volume '{printable(text)}' is not understood", _VOLUME_GRAMMAR)
        source, target = (_plain_path(part, text) for part in parts)
        return cls(source, target, mode == "ro")

    def __str__(self) -> str:
        return f"{self.source}:{self.target}" + (":ro" if self.read_only else "")


@dataclass(frozen=True)
class Pin:
    """What the submit filter wrote into the script: the reference that the user gave, and the id that it stood for."""

    reference: ImageReference
    id: str

    def line(self) -> str:
        """The script line, without newline."""
        return f"{PIN_PREFIX}{self.reference} {self.id}"


@dataclass(frozen=True)
class JobRequest:
    """A job's request, complete and checked. `pin` is None where the script had none for this reference."""

    job: str
    user: Account
    reference: ImageReference
    volumes: tuple[Volume, ...]
    pin: Pin | None = None


def is_requested(variables: Mapping[str, str]) -> bool:
    """Whether a job wants an image at all: an empty variable counts as none (cray-reference T62)."""
    return bool(variables.get(IMAGE_VARIABLE, "").strip())


def job_request(
    job: str, user: Account, variables: Mapping[str, str], pin: Pin | None, rules: VolumesConfig
) -> JobRequest:
    """The request that a job's variables make.

    Raises UsageError for what cannot be meant, NotPermitted for what the site or the rules of the root forbid.
    """
    reference = ImageReference.parse(variables.get(IMAGE_VARIABLE, "").strip())
    volumes = parse_volumes(variables.get(VOLUMES_VARIABLE, ""))
    if len(volumes) > rules.max_count:
        raise NotPermitted(f"{len(volumes)} volumes, the site allows {rules.max_count}")
    for volume in volumes:
        check_volume(volume, rules)
    kept = pin if pin is not None and pin.reference == reference else None
    return JobRequest(job_id(job), user, reference, volumes, kept)


def job_id(text: str) -> str:
    """A batch job's id as Torque writes it, such as `123.sdb` or `12[3].sdb`. Raises UsageError."""
    if not _JOB_ID.fullmatch(text):
        raise UsageError(f"not a job id: '{printable(text)}'")
    return text


def parse_volumes(text: str) -> tuple[Volume, ...]:
    """The volumes that `UDI_VOLUMES` holds; `;` separates them, and an empty piece is none."""
    return tuple(Volume.parse(piece.strip()) for piece in text.split(";") if piece.strip())


def check_volume(volume: Volume, rules: VolumesConfig) -> None:
    """Whether the site and the rules of the root allow a volume, as far as its text can tell.

    The node asks again about the folder that the source really is. Raises NotPermitted.
    """
    if not any(is_within(volume.source, folder) for folder in rules.allowed):
        allowed = ", ".join(rules.allowed) or "none"
        raise NotPermitted(
            f"volume {printable(volume)}: source {printable(volume.source)} is outside what the site allows",
            f"sources may lie in: {allowed}",
        )
    if is_forbidden(volume.target):
        raise NotPermitted(f"volume {printable(volume)}: no volume may be mounted on {printable(volume.target)}")


def find_pin(script: bytes) -> Pin | None:
    """The pin in a job script, read as user text: the first such line; None where there is none, or no good one."""
    for raw in script[:_PIN_SEARCH_BYTES].split(b"\n"):
        if raw.startswith(PIN_PREFIX.encode()):
            return _pin(raw.decode("utf-8", "replace"))
    return None


def with_pin(script: bytes, pin: Pin) -> bytes:
    """The script with the pin as its line after `#!`, or as its first; pins that stood in it are taken out."""
    lines: Iterable[bytes] = (s for s in script.splitlines(keepends=True) if not s.startswith(PIN_PREFIX.encode()))
    kept = list(lines)
    place = 1 if kept and kept[0].startswith(b"#!") else 0
    if place and not kept[0].endswith(b"\n"):
        kept[0] += b"\n"
    kept.insert(place, pin.line().encode() + b"\n")
    return b"".join(kept)


def _pin(line: str) -> Pin | None:
    words = line[len(PIN_PREFIX) :].split()
    if len(words) != 2 or not _ID.fullmatch(words[1]):
        return None
    try:
        return Pin(ImageReference.parse(words[0]), words[1])
    except UsageError:
        return None


def _plain_path(part: str, whole: str) -> str:
    """An absolute path that says one thing only; a trailing slash is forgiven (it changes nothing for a folder)."""
    path = part.rstrip("/") if len(part) > 1 else part
    if not path.startswith("/") or len(path) > _MAX_PATH:
        raise UsageError(f"volume '{printable(whole)}': '{printable(part)}' is not an absolute path", _VOLUME_GRAMMAR)
    if any(name in ("", ".", "..") for name in path.split("/")[1:]):
        raise UsageError(
            f"volume '{printable(whole)}': '{printable(part)}' may hold no '.', '..' or '//'", _VOLUME_GRAMMAR
        )
    if any(c < " " or c == "\x7f" for c in path):
        raise UsageError(f"volume '{printable(whole)}': '{printable(part)}' holds a control character")
    return path
