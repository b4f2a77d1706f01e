"""Which image a job gets: the one that its pin names, where that may be used, else what its reference means now."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterator

from jobs.agreed import Agreement, forget
from udi.acceptance import require_accepted
from udi.accounts import store_owner
from udi.audit import judge
from udi.chos import LABEL, SCHEME, Bind
from udi.chosmap import environment_of, not_published, permitted
from udi.config import SiteConfig
from udi.facts import Facts
from udi.oserrors import reason
from udi.reference import ImageReference
from udi.request import JobRequest, Pin, require_room
from udi.store import StoreLayout, StoreReader, require_store
from udi.values import Frozen, replace
from udiroot.errors import ImageInvalid, NotFound, UpstreamFailed
from udiroot.rights import FileRights

_log = logging.getLogger("udi.jobs")


class Choice(Frozen):
    """The image's facts, what the user should know about the choice, and what the site's map has every job in it
    mount, where it is an environment. `is_pinned` where the reference means another image now, or none. `agreed` is the
    file by which the job's other nodes take the same image (`jobs.agreed`)."""

    facts: Facts
    notice: str = ""
    binds: tuple[Bind, ...] = ()
    is_pinned: bool = False
    agreed: str = ""


def choose_image(
    site: SiteConfig, request: JobRequest, *, marks_use: bool = True, agreement: Agreement | None = None
) -> Choice:
    """The image for a request, as far as its user may use it. Files only; the gateway is not queried. `marks_use` says
    that the time of this use is recorded: once a job is enough, where each of its nodes looks for itself. By
    `agreement` all of these get the same image.

    Raises NotFound, ImageInvalid; NotPermitted where the site's rules on signatures do not accept it, the site refuses
    what its scanner found, or its map does not let the user have the environment; ConfigError where the map is wrong;
    UpstreamFailed when the store cannot be read, and for an environment that is not published.
    """
    layout = StoreLayout(site.store.path)
    reader = StoreReader(layout, request.user.uid, request.user.groups, reads_all=True)
    try:
        with FileRights(*store_owner(site.store.account)):
            choice = _agreed(site, reader, request, agreement) if agreement else _choice(reader, request)
            with _forgotten_on_error(site, choice, agreement):
                choice = _audited(site, reader, request, choice)
                _require_file(layout, request, choice.facts)
                require_accepted(site, reader, request.reference, choice.facts.id)
            if marks_use:
                _mark_used(layout, choice.facts.id)
    except OSError as error:
        raise UpstreamFailed(f"image store {layout.path}: {reason(error)}") from error
    except NotFound as error:
        if request.reference.scheme == SCHEME:  # the map has it: the request was checked by that
            raise not_published(request.reference.name, request.user) from error
        raise
    return replace(choice, binds=_binds(site, request, choice))


def _agreed(site: SiteConfig, reader: StoreReader, request: JobRequest, agreement: Agreement) -> Choice:
    """The choice, where all nodes must come to one: a pin does that, and so does a reference that cannot change."""
    if request.reference.id or request.reference.digest:
        return _choice(reader, request)
    path, name = agreement.path(site, request), str(request.reference)
    if request.pin is None and (known := agreement.known(reader, path, name)):
        return Choice(known, agreed=path)
    choice = _choice(reader, request)
    if request.pin and request.pin.id == choice.facts.id:
        return choice
    facts, agreed = agreement.facts(reader, path, choice.facts, name)
    return replace(choice, facts=facts, agreed=agreed)


@contextlib.contextmanager
def _forgotten_on_error(site: SiteConfig, choice: Choice, agreement: Agreement | None) -> Iterator[None]:
    """Nothing of the start is left on this node that would remember to do it later."""
    try:
        yield
    except BaseException:
        if agreement and choice.agreed:
            forget(site, choice.agreed, agreement.here)
        raise


def _binds(site: SiteConfig, request: JobRequest, choice: Choice) -> tuple[Bind, ...]:
    """What the site's map says now of the environment that the image is; nothing for any other image.

    An image that a pin alone leads to counts as named by its id, since the user may have written the pin.
    """
    is_by_id = choice.is_pinned and request.reference.scheme != SCHEME
    name = environment_of(ImageReference(id=choice.facts.id) if is_by_id else request.reference, choice.facts)
    if not name:
        return ()
    environment = permitted(site, name, request.user)
    require_room(request.volumes, environment)
    return environment.mounts


def _audited(site: SiteConfig, reader: StoreReader, request: JobRequest, choice: Choice) -> Choice:
    """The choice, where the report on the image allows it. A job whose image was accepted at submission, which the
    gateway's pin shows, runs whatever was found since; any other learns here what others learn there."""
    if not site.audit.is_on or reader.has_pin(choice.facts.id):
        return choice
    verdict = judge(site.audit, reader.audit(choice.facts.id))
    verdict.require(str(request.reference))
    warning = verdict.warning(str(request.reference))
    if not warning:
        return choice
    notice = f"{choice.notice}; {warning}" if choice.notice else f"warning: {warning}"
    return replace(choice, notice=notice)


def _require_file(layout: StoreLayout, request: JobRequest, facts: Facts) -> None:
    """Raises ImageInvalid where the image has no file; OSError, and UpstreamFailed, where the store has failed."""
    is_what = stat.S_ISDIR if facts.format == "directory" else stat.S_ISREG
    try:
        is_there = is_what(os.stat(layout.content(facts.id, facts.format)).st_mode)
    except FileNotFoundError:
        is_there = False
    if not is_there:
        require_store(layout)
        raise ImageInvalid(f"image {request.reference} has facts but no file in the store", "pull it again")


def _mark_used(layout: StoreLayout, image_id: str) -> None:
    """The time of the facts file is when the image was last used: `udi-gateway expire` goes by it."""
    try:
        os.utime(layout.facts(image_id))
    except OSError as error:
        _log.warning("the last use of image %s could not be recorded: %s", image_id, reason(error))


def _choice(reader: StoreReader, request: JobRequest) -> Choice:
    """A pin is user text: it is honored only where the reference allows it and the user may use that image anyway."""
    pin = request.pin
    try:
        now = reader.facts(request.reference)
    except NotFound:
        pinned = _pinned(reader, request, pin) if pin else None
        if pinned is None:
            raise
        return Choice(pinned, is_pinned=True)
    if pin is None or pin.id == now.id:
        return Choice(now)
    pinned = _pinned(reader, request, pin)
    if pinned:
        return Choice(pinned, is_pinned=True)
    name = request.reference
    notice = f"the image pinned for {name} at submission no longer exists; using the current {name}"
    _log.info("%s", notice)
    return Choice(now, notice)


def _pinned(reader: StoreReader, request: JobRequest, pin: Pin) -> Facts | None:
    if request.reference.id and request.reference.id != pin.id:
        return None
    try:
        facts = reader.facts(ImageReference(id=pin.id))
    except NotFound:
        return None
    if request.reference.digest and facts.digest != request.reference.digest:
        return None
    if request.reference.scheme == SCHEME and environment_of(request.reference) != facts.labels.get(LABEL):
        return None
    return facts
