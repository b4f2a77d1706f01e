"""EDF files, in which users of CSCS's Container Engine keep their environments, as far as they mean the same here.

The keys and what they mean: docs.cscs.ch/software/container-engine/edf. What cannot mean the same is an error that says
what to do, since a run that differs in silence is no reproduction of another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from udi.runvalues import Parts, Values
from udiroot.errors import printable

EDF_ONLY = ("mounts", "env", "writable", "base_environment", "devices", "annotations")
EDF_KEYS = ("image", "mounts", "workdir", "entrypoint", "writable", "env", "base_environment", "devices", "annotations")
_REMOTE = re.compile(r"(?:(?P<user>[^@#]*)@(?=.*#))?(?:(?P<registry>[^#]*)#)?(?P<image>[^#]+)")
"""`[USER@][REGISTRY#]IMAGE[:TAG]`, as enroot writes it."""
_SAME_FLAGS = ("rw", "bind", "rbind", "private", "rprivate")
"""Flags of a mount that say what every volume is here anyway."""


def read_edf(document: Mapping[str, Any], values: Values) -> Parts:
    """The values of an EDF file by our own keys; what cannot be had here is noted."""
    _require_same(document, values)
    entrypoint = document.get("entrypoint", True)
    if not isinstance(entrypoint, bool):
        values.wrong.append("entrypoint must be true or false in an EDF file")
    return Parts(
        image=_image(values.text("image", document.get("image", "")), values),
        volumes=tuple(
            _volume(f"mounts[{number}]", text, values)
            for number, text in enumerate(values.texts("mounts", document.get("mounts", [])))
            if text
        ),
        workdir=_from_here(values.text("workdir", document.get("workdir", ""))),
        entrypoint=() if entrypoint is False else None,
        environment=values.variables("env", document.get("env", {}), empty_unsets=True),
        volumes_key="mounts",
    )


def _require_same(document: Mapping[str, Any], values: Values) -> None:
    if document.get("base_environment"):
        values.wrong.append("base_environment is not read here (copy what the other file says into this one)")
    if document.get("writable", False) is not False:
        values.wrong.append("writable must be false: an image is read-only here (write to /tmp, or to a volume)")
    for key in ("devices", "annotations"):
        if document.get(key):
            values.wrong.append(
                f"{key} cannot be had here (the site's modules bring devices and libraries: see udi modules)"
            )


def _image(text: str, values: Values) -> str:
    if text.startswith(("/", "./")):
        values.wrong.append(f"image is a file (udi pull squashfs:{printable(text)} NAME:TAG, then image = NAME:TAG)")
        return ""
    match = _REMOTE.fullmatch(text)
    if not match or "#" not in text:
        return text
    if match["user"] is not None:
        values.wrong.append("image: a registry's account is not taken from the file (see udi login)")
    return f"{match['registry']}/{match['image']}" if match["registry"] else match["image"]


def _volume(key: str, text: str, values: Values) -> str:
    """A mount in our spelling."""
    source, target, flags = (*text.split(":", 2), "", "")[:3]
    named = [flag for flag in flags.split("+") if flag]
    for flag in named:
        if flag == "sqsh":
            values.wrong.append(f"{key}: an image file cannot be a volume (udi pull makes images of such files)")
        elif flag != "ro" and flag not in _SAME_FLAGS:
            values.wrong.append(f"{key}: flag '{printable(flag)}' is not known here; ro is")
    return f"{_from_here(source)}:{_from_here(target)}{':ro' if 'ro' in named else ''}"


def _from_here(path: str) -> str:
    """A path that begins with `./` is from where the user submits, as CSCS has it."""
    return os.path.normpath(os.path.join(os.getcwd(), path)) if path.startswith("./") or path == "." else path
