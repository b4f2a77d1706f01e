"""`docker-daemon:`, by the docker SDK: the daemon pulls an image and saves it, as the first gateways did.

The manifest comes last in the stream of a saved image, so the stream is written into one file without a name; that file
is then read as an archive, and nobody else can change it. Images that the daemon already has are only for those who may
publish. For everyone else the registry is queried first, with that user's own credentials, for the manifest that the
name stands for; the daemon is made to pull that one, and what it saves must have the id that the manifest names.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.sources.files import DockerArchive, OpenedFiles
from gateway.store.credentials import Credentials
from udi.command import Deadline
from udi.jsonvalue import JsonValue
from udi.oserrors import reason
from udiroot.errors import ImageInvalid, NotFound, NotPermitted, TimedOut, UdiError, UpstreamFailed, printable

if TYPE_CHECKING:
    import docker

_SILENCE = 300
"""Seconds between two pieces of an answer: before the first one, older daemons write the image to their disk."""
_ID = re.compile(r"sha256:[0-9a-f]{64}")
_ERRORS: dict[int | None, type[UdiError]] = {401: NotPermitted, 403: NotPermitted, 404: NotFound}
"""By HTTP status; all others are UpstreamFailed."""
_REGISTRY_ERRORS = {"unauthorized": 401, "denied": 403, "manifest unknown": 404, "name unknown": 404, "not found": 404}
"""A registry's error codes in a daemon's text (OCI distribution specification, "Error Codes"), as HTTP status: a pull
that fails in the middle is reported as text, mostly without a number."""


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
    directory: str,
    limit: int,
    *,
    credentials: Credentials | None = None,
    seconds: float = 3600,
    progress: Callable[[int], None] = lambda count: None,
) -> OpenedFiles:
    """The image as an archive in a file without a name, in `directory`; it is pulled first if `image` demands it.

    Raises ImageInvalid above `limit` bytes, NotFound, NotPermitted, UpstreamFailed, TimedOut.
    """
    deadline = Deadline(seconds)
    with contextlib.ExitStack() as on_failure:
        try:
            descriptor = os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
            on_failure.callback(os.close, descriptor)
            with _client(image.socket) as client, open(descriptor, "wb", closefd=False) as stream:
                if image.pull:
                    _pull(client, image.name, credentials, deadline)
                for piece in client.get_image(_id_of(client, image.name), chunk_size=1 << 20):
                    stream.write(piece)
                    progress(len(piece))
                    if stream.tell() > limit:
                        raise ImageInvalid("image is too large", "limit set by gateway.max_image_bytes")
                    _check(deadline)
        except OSError as error:
            raise UpstreamFailed(f"image cannot be written to {directory}: {reason(error)}") from error
        on_failure.pop_all()
    return OpenedFiles(DockerArchive, "", {"": descriptor})


def _pull(client: docker.APIClient, name: str, credentials: Credentials | None, deadline: Deadline) -> None:
    repository, _, digest = name.partition("@")
    # an empty dictionary, unlike None, keeps the SDK from using those in ~/.docker
    shown = {"username": credentials.user, "password": credentials.password} if credentials else {}
    for decoded in client.pull(repository, digest, stream=True, decode=True, auth_config=shown):
        _check(deadline)
        line = JsonValue(decoded, "answer of the Docker daemon", UpstreamFailed)
        error = line.get("error")
        if not error.is_null:
            text = error.text()
            raise _failed(f"pull {name}", _code(line, text), text)


def _check(deadline: Deadline) -> None:
    if deadline.passed:
        raise TimedOut("the Docker daemon took too long", "limit set by registry.deadline")


def _id_of(client: docker.APIClient, name: str) -> str:
    found = JsonValue(client.inspect_image(name), "answer of the Docker daemon", UpstreamFailed).get("Id").text("")
    if not _ID.fullmatch(found):
        raise UpstreamFailed("the Docker daemon sent no valid image id")
    return found


def _code(line: JsonValue, text: str) -> int | None:
    """The HTTP status that an error in the middle of a pull amounts to, if it can be known."""
    code = line.get("errorDetail").get("code")
    if not code.is_null and code.integer():
        return code.integer()
    return next((status for word, status in _REGISTRY_ERRORS.items() if word in text.lower()), None)


def _failed(what: str, status: int | None, text: str) -> UdiError:
    return _ERRORS.get(status, UpstreamFailed)(f"the Docker daemon cannot {what}: {printable(text)}")


@contextlib.contextmanager
def _client(socket: str) -> Iterator[docker.APIClient]:
    """The daemon at `socket`. Raises its errors as ours."""
    import docker  # takes a tenth of a second, which only those who use a daemon should spend
    import docker.errors
    import requests
    import urllib3.exceptions

    class Client(docker.APIClient):  # type: ignore[misc] # the SDK has no types
        def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
            """The SDK waits without an end for what a pull says next."""
            answer: requests.Response = super().send(request, **{**kwargs, "timeout": _SILENCE})
            return answer

    try:
        with contextlib.closing(Client(socket, version="auto", timeout=_SILENCE)) as client:
            yield client
    except docker.errors.APIError as error:
        raise _failed("do this", error.status_code, str(error.explanation or error)) from error
    except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) as error:
        raise TimedOut(f"the Docker daemon sent nothing for {_SILENCE} s") from error
    except ValueError as error:
        raise UpstreamFailed(f"the Docker daemon sent an answer that is not JSON: {printable(error)}") from error
    except (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise UpstreamFailed(
            f"the Docker daemon cannot be reached: {printable(error)}", "see gateway.daemon"
        ) from error
