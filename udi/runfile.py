"""Environment files: image, volumes, modules, environment, working directory and entry point of a run, in one file.

Whoever names one with `@FILE` has it read here, by a program that runs as that user, before anything is submitted; no
program of root opens it. What it says becomes what could have been typed (`udi.carried`), and is checked as that is.

    image = "team/app:1.0"
    volumes = ["/scratch/${USER}/run:/output", "/scratch/data:/input:ro"]
    modules = ["mpich"]
    unset = ["DISPLAY"]
    workdir = "/output"
    entrypoint = ["/opt/app/bin/solver"]
    args = ["-v", "input.dat"]

    [environment]
    OMP_NUM_THREADS = "8"
    PATH = "/opt/app/bin:${PATH}"

`${NAME}` is a variable of the user who submits; in `[environment]`, a variable's own name stands for what it would have
been, at one end of a list or between two. A file with keys of EDF, CSCS's format, is read as such (`udi.edf`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from udi.carried import MARK, Carried, RunChanges, is_file
from udi.edf import EDF_KEYS, EDF_ONLY, read_edf
from udi.nearest import nearest
from udi.oserrors import reason
from udi.plaintoml import read_toml
from udi.reference import ImageReference, as_taught
from udi.request import Volume
from udi.runvalues import Parts, Values
from udi.sitemodules import parse_modules
from udiroot.errors import UdiError, UsageError, printable

KEYS = ("image", "volumes", "modules", "unset", "workdir", "entrypoint", "args", "environment")
_OURS_ONLY = ("volumes", "modules", "unset", "args", "environment")
_MAX_BYTES = 64 << 10
_MAX_NAME = 390
"""Characters of a file's name: a note of Slurm's hooks keeps so many, by which a step knows its job's."""


def carry(image: str, environment: Mapping[str, str]) -> str:
    """What a job must carry that was asked for with this image: empty where that names no file.

    `environment` is the user's, for `${NAME}`. Raises UsageError for a file that cannot be read, or is wrong.
    """
    return read_run_file(image.strip().removeprefix(MARK), environment).text() if is_file(image) else ""


def read_run_file(path: str, environment: Mapping[str, str]) -> Carried:
    """What the file at `path` says. Raises UsageError with the first of what is wrong."""
    found, wrong = examined(path, environment)
    if found is None:
        more = f"and {len(wrong) - 1} more: udi env check {printable(path)}" if len(wrong) > 1 else ""
        raise UsageError(f"environment file {wrong[0]}", more)
    return found


def examined(path: str, environment: Mapping[str, str]) -> tuple[Carried | None, tuple[str, ...]]:
    """What the file says, or None and everything that is wrong with it, each with the file's name and the key."""
    values = Values(environment)
    try:
        parts = _parts(_document(path), values)
        found = _carried(path, parts, values)
        found.text()
    except UsageError as error:
        values.wrong.append(f"{error.message} ({error.hint})" if error.hint else error.message)
    if values.wrong:
        name = printable(path)
        return None, tuple(each if each.startswith(f"{name}:") else f"{name}: {each}" for each in values.wrong)
    return found, ()


def _document(path: str) -> Mapping[str, Any]:
    """The TOML of a regular file. Raises UsageError."""
    if len(path) > _MAX_NAME or not path.isprintable():
        raise UsageError(f"its name has over {_MAX_NAME} characters, or some that cannot be printed")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError("it is not a regular file")
            text = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"it cannot be read: {reason(error)}") from error
    if len(text) > _MAX_BYTES:
        raise UsageError(f"it has over {_MAX_BYTES} bytes")
    try:
        return read_toml(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError("it is not text in UTF-8") from error
    except RecursionError as error:
        raise UsageError("it is nested too deeply") from error
    except ValueError as error:
        raise UsageError(f"it is not TOML: {printable(error)}") from error


def _parts(document: Mapping[str, Any], values: Values) -> Parts:
    """The values by our own keys, whichever kind of file it is."""
    edf = [key for key in document if key in EDF_ONLY or (key == "entrypoint" and isinstance(document[key], bool))]
    ours = [key for key in document if key in _OURS_ONLY]
    if edf and ours:
        raise UsageError(
            f"{ours[0]} is a key of environment files and {edf[0]} one of EDF files", "keep to one kind in a file"
        )
    known = EDF_KEYS if edf else KEYS
    for key in document:
        if key not in known:
            values.wrong.append(f"unknown key '{printable(key)}' ({_nearest(key, known)})")
    return read_edf(document, values) if edf else _ours(document, values)


def _nearest(key: str, known: Iterable[str]) -> str:
    near = nearest(key.lower(), (*known, *EDF_ONLY), 0.55)
    return f"did you mean {near}?" if near else f"there are: {', '.join(known)}"


def _ours(document: Mapping[str, Any], values: Values) -> Parts:
    return Parts(
        image=values.text("image", document.get("image", "")),
        volumes=values.texts("volumes", document.get("volumes", [])),
        modules=values.texts("modules", document.get("modules", [])),
        workdir=values.text("workdir", document.get("workdir", "")),
        entrypoint=values.texts("entrypoint", document["entrypoint"]) if "entrypoint" in document else None,
        args=values.texts("args", document["args"]) if "args" in document else None,
        environment=(
            *(("unset", name) for name in values.texts("unset", document.get("unset", []))),
            *values.variables("environment", document.get("environment", {}), empty_unsets=False),
        ),
    )


def _carried(path: str, parts: Parts, values: Values) -> Carried:
    """What the parts are as a request that was typed; what is wrong with them is noted."""
    if not parts.image and not values.wrong:
        values.wrong.append('image is missing: write image = "NAME:TAG"')
    elif parts.image and is_file(parts.image):
        values.wrong.append("image must not be another environment file")
    elif parts.image:
        _try(values, "image", lambda: ImageReference.parse(as_taught(parts.image).strip()))
    for number, volume in enumerate(parts.volumes):
        _try(values, f"{parts.volumes_key}[{number}]", lambda text=volume: _one_volume(text))  # type: ignore[misc]
    for number, module in enumerate(parts.modules):
        _try(values, f"modules[{number}]", lambda text=module: _one_module(text))  # type: ignore[misc]
    run = RunChanges(parts.workdir, parts.entrypoint, parts.args, parts.environment)
    values.wrong += [f"{key} {words}" for key, words in run.wrong()]
    return Carried(path, parts.image, ";".join(parts.volumes), ";".join(parts.modules), run)


def _try(values: Values, key: str, check: Callable[[], object]) -> None:
    try:
        check()
    except UdiError as error:
        values.wrong.append(f"{key}: {error.message}" + (f" ({error.hint})" if error.hint else ""))


def _one_volume(text: str) -> None:
    if ";" in text:
        raise UsageError(f"'{printable(text)}' has a semicolon", "give each volume a text of its own")
    Volume.parse(text)


def _one_module(text: str) -> None:
    if len(parse_modules(text)) != 1 or ";" in text:
        raise UsageError(f"not a module's name: '{printable(text)}'", "give each module a text of its own")
