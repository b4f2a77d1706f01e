"""`udi-slurm-submit`: what the plugin runs, as the user, before sbatch, salloc or srun submits a job with an image.

    udi-slurm-submit [--config FILE] --image TEXT [--volumes TEXT] [--modules TEXT] [--job ID --job-image TEXT]

It refuses a request that could not succeed, while the user is there to read why; has the image pulled where it is not
in the store yet, and shows the progress; and fixes the image that a tag stands for. On any error that is not the user's
the job is accepted, and the image is checked when it starts. With `UDI_WAIT=no` in the environment, it does not wait
for a pull. With `--job`, a step of that job asks: it may only name its job's image.

TEXT is `~/.chos` where no image was given and the site honors that file of the user (`udi.homefile`); the answer is the
image `none` where it names nothing.

The plugin reads from stdout what the job is submitted with:

    image <reference>
    id <64 hex>|-
    volumes <list>
    modules <list>
    run <what the job carries of an environment file>
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
from udi.carried import asked, is_file
from udi.config import DEFAULT_PATH, SiteConfig, load
from udi.homefile import FILE, NONE, image_of_home
from udi.oserrors import reason
from udi.reference import ImageReference, as_taught
from udi.request import NO_JOB_YET, parse_volumes, require_sources
from udi.runfile import carry
from udi.sentences import report, sentence
from udi.sitemodules import parse_modules
from udi.waiting import WAIT, is_wait, waits
from udiroot.errors import UdiError, UpstreamFailed, UsageError, printable

PROGRAM = "udi-slurm-submit"
_AT_HOME = f"~/{FILE}"
_OPTIONS = ("--config", "--image", "--volumes", "--modules", "--job", "--job-image")
_JOBS_IMAGE_ID = "SLURM_SPANK_UDI_ID"
"""Slurm's name, in a job's environment, for the id that its submission fixed."""
_JOBS_CARRIED = "SLURM_SPANK_UDI_RUN"
"""The same for what it carries of an environment file."""
_INTERRUPTED = 130
_INTERNAL_ERROR = 70


class Answer(NamedTuple):
    """What the plugin reads, by its keywords and in their order."""

    image: str
    id: str
    volumes: str = ""
    modules: str = ""
    run: str = ""


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
    carried = carry(image, environment)
    try:
        site = load(given.get("--config", DEFAULT_PATH))
        if image == _AT_HOME and not (image := _of_home(site, environment.get("HOME", ""))):
            return Answer(NONE, NO_ID)
        return _checked(site, image, volumes, modules, carried, wait=waits(environment.get(WAIT, "")))
    except UdiError as error:
        if error.is_users:
            raise
        if image in ("", _AT_HOME):
            report(PROGRAM, f"{_AT_HOME} is not read, the job runs without an image: {sentence(error)}")
            return Answer(NONE, NO_ID)
        report(PROGRAM, f"image not checked, it will be when the job starts: {sentence(error)}")
        name = as_taught(asked(image, carried=carried).image).strip()
        return _answer(str(ImageReference.parse(name)), NO_ID, volumes, modules, carried)


def _of_home(site: SiteConfig, home: str) -> str:
    if not site.chos.home_file:
        report(PROGRAM, f"warning: {_AT_HOME} is not read, since chos.home_file is off: the job runs without an image")
        return ""
    image, warning = image_of_home(site, home)
    if warning:
        report(PROGRAM, f"warning: {warning}")
    return image


def _checked(site: SiteConfig, image: str, volumes: str, modules: str, carried: str, *, wait: bool) -> Answer:
    user = account_of_uid(os.getuid())
    request = requested(site, NO_JOB_YET, user, image, volumes, modules=modules, carried=carried)
    require_sources(request.volumes, site.volumes)
    try:
        found = image_id(site, PROGRAM, str(request.reference), wait=wait)
    except UdiError as error:
        if error.is_users:
            raise
        report(PROGRAM, f"image not checked, it will be when the job starts: {sentence(error)}")
        found = None
    return _answer(str(request.reference), found or NO_ID, volumes, modules, carried)


def _answer(image: str, found: str, volumes: str, modules: str, carried: str) -> Answer:
    """Of volumes and modules, those that were typed: the others are among what the job carries."""
    listed = ";".join(map(str, parse_volumes(volumes)))
    return Answer(image, found, listed, ";".join(parse_modules(modules)), carried)


def _step(given: Mapping[str, str], environment: Mapping[str, str]) -> Answer:
    """A step runs in its job's root, so it may name its job's image only, by any of its names."""
    step, job, jobs = given["--image"], given["--job"], given.get("--job-image", "")
    for option, what in (("volume", "volumes"), ("module", "modules")):
        if given.get(f"--{what}", ""):
            raise UsageError(
                f"a step of job {printable(job)} cannot have {what} of its own",
                f"name them when the job is submitted: sbatch --{option}=..., salloc --{option}=...",
            )
    carried = environment.get(_JOBS_CARRIED, "")
    if is_file(step) and step != jobs:
        raise UsageError(
            f"environment file {printable(step.strip()[1:])} was asked for in job {printable(job)}",
            "such a file is the whole job's: name it to sbatch, to salloc, or to an srun outside of a job",
        )
    wanted = _reference(given, asked(step, carried=carried).image)
    has = _reference(given, asked(jobs, carried=carried).image) if jobs else None
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
        report(PROGRAM, f"the answer cannot be written: {reason(error)}")
        return UpstreamFailed.exit_code
    return 0
