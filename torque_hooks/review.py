"""What a submission says about images and qsub does not pass on: nothing of it may be lost in silence.

qsub keeps one `-v` list of those that are written, splits it at every comma, takes any name, and does not look into the
script. So a job can run outside its image, or without its volumes, and end with exit code 0. Here what the user wrote
is compared with what the job gets: what cannot be meant is refused, and what may be meant is a warning.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping

from torque_hooks.directives import Item, Submission, VariableList
from torque_hooks.scripts import Setting, settings, submits
from torque_hooks.variables import IMAGE, MODULES, ROOT, ROOT_NAME, VOLUMES, is_requested
from udi.homefile import FILE, NONE
from udi.nearest import nearest
from udi.waiting import WAIT, is_wait
from udiroot.errors import UsageError, printable
from udiroot.sitemodules import USED

_LISTS = (VOLUMES, MODULES)
"""What goes with an image, and means nothing without one."""
_NEVER_LOST = (IMAGE, *_LISTS)
_OURS = (*_NEVER_LOST, WAIT)
_OF_UDI_RUN = (USED, "UDI_IMAGE", "UDI_IMAGE_ID")
"""What `udi-run` sets for programs of an image, which may submit jobs themselves."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXPORTED_FUNCTION = "BASH_FUNC_"
"""Begins the names under which bash exports functions."""
_ONE_LIST = f"write one list: qsub -v '{IMAGE}=NAME:TAG,{VOLUMES}=/source:/target;/source:/target,OTHER=value'"
_AT_SUBMISSION = f"request it at submission: qsub -v {IMAGE}=NAME:TAG, or #PBS -v before the first command"
_LIKE_AN_IMAGE = re.compile(r"[a-z][\w.-]*[:/][\w.:/@-]+")
_NO_LETTERS = " \t'\"$\\{(`-"
"""What a person may write before a name."""
_OTHER_ROOTS = ("DSL", "INITRAMFS", "")
"""Roots that a Cray has beside ours; any other name is taken for a site's image root."""
_NEARLY_DIRECTIVE = re.compile(r"#(?:[ \t]*PBS\b|\$|[A-Z]{3,8}\b).*-v", re.IGNORECASE)
"""A directive of ours that is not one, or one of another batch system."""
_OUR_NAME = re.compile(rf"(?<![A-Za-z0-9_]){IMAGE}(?![A-Za-z0-9])", re.IGNORECASE)
_ASSIGNED = re.compile(rf"(?<![A-Za-z0-9_])(?:{'|'.join(_NEVER_LOST)})\s*=")


def review(submission: Submission, environment: Mapping[str, str], *, has_image: bool = False) -> list[str]:
    """Warnings about a submission, a sentence each. `has_image` where it gets one that is not written in it. Raises
    UsageError for what cannot be meant."""
    for written in submission.lists:
        _require_variables(written)
        _require_known_names(written)
        _require_values(written)
    _require_no_strays(submission)
    _require_nothing_lost(submission)
    _require_an_image(submission, has_image=has_image)
    warnings = [
        *_about_names(submission),
        *_about_environment(submission, environment),
        *_about_other_options(submission),
        *_about_script(submission),
    ]
    return list(dict.fromkeys(warnings))


def _require_variables(written: VariableList) -> None:
    """A comma within a value makes what follows an item of its own: `UDI_VOLUMES=/a:/b,/c:/d`. An empty item, qsub
    itself refuses (cray-reference T61)."""
    if not any(_begins_like_ours(item.name) or _OUR_NAME.match(item.name.strip(_NO_LETTERS)) for item in written.items):
        return
    for item in written.items:
        text = item.text.strip()
        name = text.partition("=")[0]
        if name and not _NAME.fullmatch(name) and not name.startswith(_EXPORTED_FUNCTION):
            if _NAME.fullmatch(item.name):
                raise UsageError(f"'{printable(text)}' on {written.place} has a blank before =", "write NAME=value")
            if _NAME.fullmatch(bare := name.strip(_NO_LETTERS)):
                raise UsageError(
                    f"'{printable(text)}' on {written.place} is not a variable: qsub keeps quotes, and expands nothing",
                    f"write {bare}=value",
                )
            raise UsageError(
                f"'{printable(text)}' on {written.place} is not a variable: qsub splits -v at every comma",
                f"separate volumes by semicolons, in quotes, and modules too: {VOLUMES}=/a:/b;/c:/d",
            )


def _require_known_names(written: VariableList) -> None:
    """A name that is ours but for its spelling would be passed to the job, and mean nothing there."""
    for item in written.items:
        if item.name not in _OURS and _NAME.fullmatch(item.name) and (meant := _meant_by(item.name)):
            raise UsageError(
                f"unknown variable {printable(item.name)} on {written.place}, where {', '.join(_OURS)} are known",
                f"did you mean {meant}?",
            )


def _meant_by(name: str) -> str:
    """Which of our names a name can only have been meant as; empty for any other name."""
    upper = name.upper()
    is_certain = upper == IMAGE or upper.startswith(f"{IMAGE}_")
    near = nearest(upper, _OURS[1:], 0.7 if is_certain else 0.86)
    return near or (IMAGE if is_certain else "")


def _require_values(written: VariableList) -> None:
    """Each of our variables once, and with one meaning for every version of qsub."""
    seen: dict[str, Item] = {}
    for item in written.items:
        if item.name not in _OURS:
            continue
        if seen.setdefault(item.name, item).value != item.value:
            raise UsageError(
                f"{item.name} is given twice on {written.place}: {_shown(seen[item.name])}, {_shown(item)}"
            )
        if "=" not in item.text and not item.value:
            raise UsageError(
                f"{item.name} on {written.place} has no value, and none in the environment of qsub",
                f"write {item.name}=value, or export it",
            )
        if "=" in item.text and not item.has_value and item.value:
            raise UsageError(
                f"{item.name}= on {written.place} is empty, but qsub may take {_shown(item)} of the environment",
                f"write {_shown(item)}, or unset it",
            )
        if item.name == WAIT and not is_wait(item.value):
            raise UsageError(f"{_shown(item)} on {written.place}: {WAIT} must be yes or no")


def _require_no_strays(submission: Submission) -> None:
    """What follows the options of a directive, qsub passes over: `#PBS -v UDI=a, UDI_VOLUMES=/a:/b`."""
    for line, text in submission.strays:
        if _ASSIGNED.search(text):
            raise UsageError(
                f"'{printable(text)}' on line {line} of the script belongs to no -v list: a blank ends one",
                _ONE_LIST,
            )


def _require_nothing_lost(submission: Submission) -> None:
    """Of several lists qsub goes by one. What another one says of an image must hold in the job too, or be said again
    on the command line, which is there to override the script."""
    counting = next((written for written in submission.lists if written.counts), None)
    if counting is None:
        return
    overridden = set[str]() if counting.line else {item.name for item in counting.items}
    for written in submission.lists:
        for item in written.items:
            is_kept = item.value == submission.variables.get(item.name, "")
            if item.name in _NEVER_LOST and not is_kept and item.name not in overridden:
                raise UsageError(
                    f"{_shown(item)} on {written.place} would be lost: qsub goes by the -v on {counting.place} alone",
                    _ONE_LIST,
                )


def _require_an_image(submission: Submission, *, has_image: bool) -> None:
    """Volumes, or the name of the image root, are meant for a job with an image; another root is not."""
    listed = {item.name: item for written in submission.lists if written.counts for item in written.items}
    root = listed.get(ROOT)
    if has_image or is_requested(submission.variables):
        if root and root.value in _OTHER_ROOTS:
            what, hint = (f"~/{FILE}", f", or write {IMAGE}={NONE}") if has_image else (IMAGE, "")
            raise UsageError(
                f"{_shown(root)} contradicts {what}: aprun would not enter the image", f"omit {ROOT}{hint}"
            )
        return
    for found in (listed[name] for name in _LISTS if name in listed):
        if found.value.strip():
            raise UsageError(f"{_shown(found)} is given, but no image", f"add {IMAGE}=NAME:TAG to the same list")
    if root and root.value == ROOT_NAME:
        raise UsageError(f"{_shown(root)} is given, but no image", f"write {IMAGE}=NAME:TAG in its place")


def _about_names(submission: Submission) -> Iterator[str]:
    """What may be a slip, and what a version of Torque damages."""
    for written in submission.lists:
        for item, following in zip(written.items, (*written.items[1:], None), strict=True):
            if item.name not in _OURS and "=" in item.text and _ASSIGNED.search(item.text.partition("=")[2]):
                yield f"'{printable(item.text.strip())}' on {written.place} sets {item.name} alone: commas separate"
            if item.name not in _OURS and _is_near(item.name) and _LIKE_AN_IMAGE.fullmatch(item.value):
                yield f"{_shown(item)} on {written.place} is not {IMAGE}, and requests no image"
            if "=" not in item.text and not item.value and following and following.name in _OURS and written.counts:
                yield (
                    f"{printable(item.name)} on {written.place} is not set, and some versions of qsub then damage"
                    f" {following.name}, which follows it"
                )
        for item in _after_modules(written):
            yield (
                f"{printable(item.name)} on {written.place} is no module but a variable that is not set: the comma ends"
                f" {MODULES}, and modules are separated by ;"
            )
        if any(item.name == IMAGE and not item.value.strip() for item in written.items) and written.counts:
            yield f"{IMAGE} on {written.place} is empty: the job runs without an image"
    if WAIT in submission.variables and not (submission.takes_environment or is_requested(submission.variables)):
        yield f"{WAIT} has no effect without {IMAGE}"


def _after_modules(written: VariableList) -> Iterator[Item]:
    """What a comma may have cut off a list of modules: `UDI_MODULES=mpich,gpu`."""
    names = [item.name for item in written.items]
    if MODULES in names:
        rest = written.items[names.index(MODULES) + 1 :]
        yield from itertools.takewhile(lambda item: "=" not in item.text and not item.value, rest)


def _is_near(name: str) -> bool:
    """Whether a short name has most letters of IMAGE in their order, or two of them swapped: `UID`, `UDL`, `UD`."""
    return len(name) <= len(IMAGE) + 1 and bool(nearest(name.upper(), [IMAGE], 0.65))


def _about_environment(submission: Submission, environment: Mapping[str, str]) -> Iterator[str]:
    if submission.takes_environment:
        inside = _OF_UDI_RUN if _OF_UDI_RUN[-1] in environment else ()
        for name in environment:
            if name not in (*_OURS, *inside) and (meant := _meant_by(name)) and environment[name]:
                yield f"variable {printable(name)} of the environment has no effect; did you mean {meant}?"
    if is_requested(submission.variables):
        for name in _LISTS:
            if environment.get(name, "").strip() and name not in submission.variables:
                yield f"{name} of the environment is not passed to the job: qsub -v {IMAGE}=NAME:TAG,{name} passes it"
        if environment.get(ROOT, ROOT_NAME) != ROOT_NAME:
            yield (
                f"{ROOT}={printable(environment[ROOT])} is set in your environment: where your own profile sets it,"
                " aprun does not enter the image"
            )
    elif environment.get(IMAGE, "").strip() and IMAGE not in submission.variables:
        yield f"{IMAGE} of the environment is not passed to the job: qsub -v {IMAGE} passes it"


def _about_other_options(submission: Submission) -> Iterator[str]:
    for option, value in submission.others:
        if _ASSIGNED.search(value):
            yield f"{IMAGE} has no effect in {option} {printable(value, 80)}: write it in -v"
    for text in submission.operands:
        if _ASSIGNED.search(text):
            yield f"'{printable(text, 80)}' after the script's name has no effect: options come before it"


def _about_script(submission: Submission) -> Iterator[str]:
    """What the script's lines say after submission is over. Where the job has no image, they cannot be meant, unless
    the script submits others."""
    for number, line in enumerate(submission.header, 1):
        if _NEARLY_DIRECTIVE.match(line) and _ASSIGNED.search(line) and number not in submission.directives:
            yield f"line {number} of the script is not a directive of this job: '{printable(line, 60)}'"
    late = [
        Setting(item.name, item.value, written.line)
        for written in submission.late
        for item in written.items
        if item.name in _NEVER_LOST
    ]
    found = settings(submission.body, len(submission.header) + 1)
    for each in sorted([*late, *found], key=lambda setting: setting.line):
        if not _is_in_effect(each, submission.variables):
            is_lost = _requires_an_image(each) and not is_requested(submission.variables)
            if is_lost and not submits(submission.body):
                raise UsageError(
                    f"{printable(each)} on line {each.line} of the script is read when the job already runs, and"
                    " requests no image",
                    _AT_SUBMISSION,
                )
            yield f"{printable(each)} on line {each.line} of the script: {_effect(each)}"


def _is_in_effect(setting: Setting, variables: Mapping[str, str]) -> bool:
    """Whether the line says what is so anyway, as far as its text can tell."""
    if "$" in setting.value:
        return True
    if setting.name == ROOT:
        return (setting.value == ROOT_NAME) == is_requested(variables)
    return setting.value == variables.get(setting.name, "")


def _requires_an_image(setting: Setting) -> bool:
    return setting.name != ROOT or setting.value == ROOT_NAME


def _effect(setting: Setting) -> str:
    if setting.name == ROOT:
        return "aprun does not enter the image after it"
    return "has no effect, the image, volumes and modules of a job are those of its submission"


def _begins_like_ours(name: str) -> bool:
    return name[: len(IMAGE)].upper() == IMAGE


def _shown(item: Item) -> str:
    return f"{printable(item.name)}={printable(item.value)}"
