"""`docker-daemon:`, by the docker SDK: the daemon pulls an image and saves it, as the first gateways did.

The stream of a saved image brings its manifest last, so it goes into one file without a name, once; that file is read
from then on, as an archive, and nobody else can change it. What the daemon has already is for those alone whom the
site lets publish. For everyone else the registry is asked first, with that user's own login, which manifest the name
stands for; the daemon is told to pull that one, and what it saves must have the id that the manifest names.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.sources.opened import OpenedSource
from gateway.store.credentials import Login
from udi.command import Deadline
from udiroot.errors import ImageInvalid, NotFound, NotPermitted, TimedOut, UdiError, UpstreamFailed, printable

if TYPE_CHECKING:
    import docker

_SILENCE = 300
"""Seconds between two pieces of an answer: before the first one, older daemons write the whole image to their disk."""
_ID = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class DaemonImage:
    """An image that the daemon has under `name`, or, with `pull`, can get as `name` (`REGISTRY/NAME@DIGEST`)."""

    socket: str
    name: str
    pull: bool


def find(socket: str, name: str) -> str:
    """The id of an image that the daemon has. Raises NotFound, UpstreamFailed, TimedOut."""
    with _client(socket) as client:
        return _id_of(client, name)


def save(
    image: DaemonImage,
    folder: str,
    limit: int,
    *,
    login: Login | None = None,
    seconds: float = 3600,
    progress: Callable[[int], None] = lambda count: None,
) -> OpenedSource:
    """The image as an archive in a file without a name, in `folder`; pulled before, where that is asked for.

    Raises ImageInvalid above `limit` bytes, NotFound, NotPermitted, UpstreamFailed, TimedOut.
    """
    deadline = Deadline(seconds)
    with contextlib.ExitStack() as on_failure:
        try:
            descriptor = os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
            on_failure.callback(os.close, descriptor)
            with _client(image.socket) as client, open(descriptor, "wb", closefd=False) as stream:
                if image.pull:
                    _pull(client, image.name, login, deadline)
                for piece in client.get_image(_id_of(client, image.name), chunk_size=1 << 20):
                    stream.write(piece)
                    progress(len(piece))
                    if stream.tell() > limit:
                        raise ImageInvalid("image is larger than gateway.max_image_bytes allows")
                    _check(deadline)
        except OSError as error:
            raise UpstreamFailed(f"image cannot be kept in {folder}: {(error.strerror or '').lower()}") from error
        on_failure.pop_all()
    return OpenedSource("docker-archive", "", {"": descriptor})


def _pull(client: docker.APIClient, name: str, login: Login | None, deadline: Deadline) -> None:
    repository, _, digest = name.partition("@")
    shown = {"username": login.user, "password": login.password} if login else {}  # {}: none, not ~/.docker's either
    for line in client.pull(repository, digest, stream=True, decode=True, auth_config=shown):
        _check(deadline)
        if "error" in line:
            raise _refused(f"pull {name}", str(line["error"]))


def _check(deadline: Deadline) -> None:
    if deadline.passed:
        raise TimedOut("the Docker daemon took longer than registry.deadline allows")


def _id_of(client: docker.APIClient, name: str) -> str:
    found = str(client.inspect_image(name).get("Id", ""))
    if not _ID.fullmatch(found):
        raise UpstreamFailed("the Docker daemon names no image id")
    return found


def _refused(what: str, said: str) -> UdiError:
    text = f"the Docker daemon does not {what}: {printable(said)}"
    if re.search(r"unauthorized|denied|no basic auth|authentication required|forbidden", said, re.IGNORECASE):
        return NotPermitted(text)
    if re.search(r"not found|manifest unknown|does not exist|no such image", said, re.IGNORECASE):
        return NotFound(text)
    return UpstreamFailed(text)


@contextlib.contextmanager
def _client(socket: str) -> Iterator[docker.APIClient]:
    """The daemon at `socket`; its errors in our words."""
    import docker  # a tenth of a second, for those alone who use a daemon
    import docker.errors
    import requests

    try:
        with contextlib.closing(docker.APIClient(socket, version="auto", timeout=_SILENCE)) as client:
            yield client
    except docker.errors.APIError as error:
        raise _refused("do it", str(error.explanation or error)) from error
    except (requests.Timeout, TimeoutError) as error:
        raise TimedOut(f"the Docker daemon said nothing for {_SILENCE} s") from error
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise UpstreamFailed(f"the Docker daemon cannot be asked: {printable(error)}", "see gateway.daemon") from error
