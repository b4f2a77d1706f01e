"""`udi-slurm-submit`: what the plugin runs, as the user, before sbatch, salloc or srun submits a job with an image.

    udi-slurm-submit [--config FILE] --image TEXT [--volumes TEXT] [--modules TEXT] [--job ID --job-image TEXT]

It refuses a request that could not succeed, while the user is there to read why; has the image pulled where it is not
in the store yet, and shows the progress; and fixes the image that a tag stands for. On any error that is not the user's
the job is accepted, and the image is checked when it starts. With `UDI_WAIT=no` in the environment, it does not wait
for a pull. With `--job`, a step of that job asks: it may only name its job's image.

The plugin reads from stdout what the job is submitted with:

    image <reference>
    id <64 hex>|-
    volumes <list>
    modules <list>
    end

The exit code is 0 where the job is accepted, else the error's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.client.submission import image_id
from slurm_hooks.request import NO_ID, requested
from udi.accounts import account_of_uid
from udi.config import DEFAULT_PATH, SiteConfig, load
from udi.reference import ImageReference, as_taught
from udi.request import parse_volumes, require_sources
from udi.sentences import report, sentence
from udi.sitemodules import parse_modules
from udi.waiting import WAIT, is_wait, waits
from udiroot.errors import UdiError, UpstreamFailed, UsageError, printable

PROGRAM = "udi-slurm-submit"
_NO_JOB_YET = "0"
_OPTIONS = ("--config", "--image", "--volumes", "--modules", "--job", "--job-image")
_JOBS_IMAGE_ID = "SLURM_SPANK_UDI_ID"
"""Slurm's name, in a job's environment, for the id that its submission fixed."""
_INTERRUPTED = 130
_INTERNAL_ERROR = 70


class Answer(NamedTuple):
    """What the plugin reads, by its keywords and in their order."""

    image: str
    id: str
    volumes: str = ""
    modules: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the submission program; its exit code."""
    try:
        answer = _accepted(_options(sys.argv[1:] if argv is None else argv), os.environ)
    except UdiError as error:
        report(PROGRAM, sentence(error))
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback is for the user
        report(PROGRAM, f"internal error: {type(error).__name__}")
        return _INTERNAL_ERROR
    return _print(answer)


def _accepted(given: Mapping[str, str], environment: Mapping[str, str]) -> Answer:
    """What a job is submitted with that is accepted. Raises the UdiError by which it is refused."""
    image, volumes, modules = given["--image"], given.get("--volumes", ""), given.get("--modules", "")
    if "--job" in given:
        return _step(given, environment)
    if not is_wait(environment.get(WAIT, "")):
        raise UsageError(f"{WAIT} must be yes or no, not '{printable(environment[WAIT])}'")
    try:
        site = load(given.get("--config", DEFAULT_PATH))
        return _checked(site, image, volumes, modules, wait=waits(environment.get(WAIT, "")))
    except UdiError as error:
        if error.is_users:
            raise
        report(PROGRAM, f"image not checked, it will be when the job starts: {sentence(error)}")
        volumes = ";".join(map(str, parse_volumes(volumes)))
        modules = ";".join(parse_modules(modules))
        return Answer(str(ImageReference.parse(as_taught(image).strip())), NO_ID, volumes, modules)


def _checked(site: SiteConfig, image: str, volumes: str, modules: str, *, wait: bool) -> Answer:
    request = requested(site, _NO_JOB_YET, account_of_uid(os.getuid()), image, volumes, modules=modules)
    require_sources(request.volumes, site.volumes)
    try:
        found = image_id(site, PROGRAM, str(request.reference), wait=wait)
    except UdiError as error:
        if error.is_users:
            raise
        report(PROGRAM, f"image not checked, it will be when the job starts: {sentence(error)}")
        found = None
    volumes, modules = ";".join(map(str, request.volumes)), ";".join(parse_modules(modules))
    return Answer(str(request.reference), found or NO_ID, volumes, modules)


def _step(given: Mapping[str, str], environment: Mapping[str, str]) -> Answer:
    """A step runs in its job's root, so it may name its job's image only, by any of its names."""
    step, job, jobs = given["--image"], given["--job"], given.get("--job-image", "")
    for option, what in (("volume", "volumes"), ("module", "modules")):
        if given.get(f"--{what}", ""):
            raise UsageError(
                f"a step of job {printable(job)} cannot have {what} of its own",
                f"name them when the job is submitted: sbatch --{option}=..., salloc --{option}=...",
            )
    wanted, has = (_reference(given, text) for text in (step, jobs)) if jobs else (_reference(given, step), None)
    known_id = environment.get(_JOBS_IMAGE_ID, "")
    if wanted != has and not (wanted.id and wanted.id == known_id):
        what = f"runs in image {printable(jobs)}" if jobs else "was submitted without an image"
        raise UsageError(
            f"image {printable(step)} was asked for, but job {printable(job)} {what}",
            "a step runs in its job's image, or with --image=none outside of it; another image needs a job of its own",
        )
    return Answer(str(has or wanted), known_id or NO_ID)


def _reference(given: Mapping[str, str], text: str) -> ImageReference:
    """A reference as the site's configuration reads it, where that can be read."""
    taught = as_taught(text).strip()
    try:
        return load(given.get("--config", DEFAULT_PATH)).registry.parse(taught)
    except UsageError:
        raise
    except UdiError:
        return ImageReference.parse(taught)


def _options(words: Sequence[str]) -> Mapping[str, str]:
    """Each option has a value in a word of its own, which is user text and may begin with anything."""
    given = dict(zip(words[::2], words[1::2], strict=False))
    if len(words) % 2 or not given.keys() <= set(_OPTIONS) or "--image" not in given:
        raise UpstreamFailed("invalid arguments", "the plugin and the submission program may be of different versions")
    return given


def _print(answer: Answer) -> int:
    try:
        parts = (f"{name} {value}\n" for name, value in answer._asdict().items())
        sys.stdout.write("".join((*parts, "end\n")))
        sys.stdout.flush()
    except OSError as error:
        report(PROGRAM, f"the answer cannot be written: {error.strerror}")
        return UpstreamFailed.exit_code
    return 0
