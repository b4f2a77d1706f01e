"""From a source image to an image file and its facts, for the command line and for the service."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from gateway.image import flatten
from gateway.image.checking import Checks
from gateway.image.flatten import Flattened
from gateway.image.formats.directory import digest_of, make_directory
from gateway.image.formats.ext4 import make_ext4
from gateway.image.formats.ready import keep
from gateway.image.formats.squashfs import make_squashfs
from gateway.image.kept import KeptLayers
from gateway.image.layers import Layer
from gateway.image.limits import Limits
from gateway.image.magic import FIRST_BYTES, foreign_to_layers
from gateway.image.manifest import ImageConfig, SourceImage
from gateway.image.onlooker import Onlooker, contents_of
from gateway.image.progress import Progress
from gateway.image.removing import remove_image
from udi.facts import Facts
from udi.gatewayconfig import GatewayConfig
from udi.oserrors import reason
from udi.store import MAX_JSON
from udi.version import VERSION
from udiroot.errors import ConfigError, ImageInvalid, UpstreamFailed, printable

_Maker = Callable[[Flattened, str, GatewayConfig, Callable[[int], None]], None]
FORMATS: dict[str, _Maker] = {"squashfs": make_squashfs, "ext4": make_ext4, "directory": make_directory}
_PIECE = 1 << 20
_SPARE = 1024
"""Bytes for the facts of the image file, which are known when it is made."""
_MAX_WORD = (128 << 10) - 1
"""Bytes of one argument or variable: Linux's MAX_ARG_STRLEN, without its NUL."""
_MAX_WORDS = (2 << 20) - (64 << 10)
"""Bytes of all arguments and variables: a quarter of the stack of 8 MiB that Linux gives a program by default, without
what the site and the job add. `udi.rundata` refuses what is above at job start."""
_WORD_COST = 12
"""Bytes that each of them takes beyond its text: a keyword and NUL there, a pointer and NUL in the kernel."""
_MAX_PATH = 4095
_SWITCH_SECONDS = 0.0005
"""How long a thread that reads headers keeps the interpreter from those that expand layers, where Python's own 5 ms are
more than one of them takes for its piece."""


def convert(
    image: SourceImage,
    output: str,
    settings: GatewayConfig,
    progress: Progress,
    onlooker: Onlooker | None = None,
) -> Facts:
    """Make the image at `output`, which must not exist, checked and on disk. Returns the facts. An onlooker sees the
    tree last.

    Leaves nothing behind when it raises: ImageInvalid, UpstreamFailed, TimedOut, ConfigError.
    """
    if settings.format not in FORMATS:
        raise ConfigError(f"unknown image format '{printable(settings.format)}'", f"formats are {', '.join(FORMATS)}")
    output = os.path.abspath(output)  # programs run in /
    config = ImageConfig.parse(image.config)
    check_words(config)
    facts = _facts(image, config, settings.format)
    layers = _layers(image, config, settings.architecture)
    try:
        with _short_turns(), _kept(image, settings) as kept, Checks() as checks:
            progress.stage("reading", _bytes_to_read(layers))
            flattened = flatten.flatten(layers, Limits.of(settings), progress.advance, checks, kept)
            if onlooker:
                flattened.watched = frozenset(onlooker.wanted(flattened.final))
            progress.stage("packing", flattened.data_bytes)
            checks.packing()
            if image.ready:
                keep(flattened, image.ready, output, progress.advance)
                flattened.contents = contents_of(flattened, flattened.watched)
            else:
                FORMATS[settings.format](flattened, output, settings, progress.advance)
            checks.then(kept.free)  # takes long enough to be done beside the digest of the image
            size, digest = digest_of(output) if settings.format == "directory" else _settle(output)
            checks.finish()
            if onlooker:
                onlooker.see(flattened.final, flattened.contents)
    except BaseException as error:
        remove_image(output)
        if isinstance(error, OSError):
            raise UpstreamFailed(
                f"image file cannot be written to {printable(os.path.dirname(output))}: {reason(error)}"
            ) from error
        raise
    return dataclasses.replace(facts, size=size, sha256=digest)


def _kept(image: SourceImage, settings: GatewayConfig) -> AbstractContextManager[KeptLayers]:
    """Where the layers are expanded: where that has begun, or anew."""
    return contextlib.nullcontext(image.kept) if image.kept else KeptLayers.of(settings)


@contextlib.contextmanager
def _short_turns() -> Iterator[None]:
    """Let this process's threads take turns more often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _facts(image: SourceImage, config: ImageConfig, file_format: str) -> Facts:
    """The facts but for those of the image file. Raises ImageInvalid where they are too large for their readers."""
    facts = Facts(
        id=image.id,
        format=file_format,
        size=0,
        sha256="",
        arch=config.arch,
        digest=image.digest,
        env=config.env,
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        workdir=config.workdir,
        volumes=config.volumes,
        labels=config.labels,
        converter=f"shifter-xc {VERSION}",
        kind=image.kind,
    )
    if len(facts.to_json()) > MAX_JSON - _SPARE:
        raise ImageInvalid(f"image configuration takes more than {MAX_JSON} bytes in the store, mostly for labels")
    return facts


def verify(image: SourceImage, settings: GatewayConfig, progress: Progress) -> None:
    """Check that the source has the layers that its configuration names. Raises ImageInvalid."""
    config = ImageConfig.parse(image.config)
    layers = _layers(image, config, settings.architecture)
    progress.stage("reading", _bytes_to_read(layers))
    with _kept(image, settings) as kept:
        flatten.verify(layers, Limits.of(settings), progress.advance, kept)


def _layers(image: SourceImage, config: ImageConfig, arch: str) -> list[Layer]:
    config.check_platform(arch)
    if len(config.diff_ids) != len(image.layers):
        raise ImageInvalid(
            f"image has {len(image.layers)} layers, its configuration names {len(config.diff_ids)}",
        )
    for number, blob in enumerate(image.layers, 1):
        if kind := foreign_to_layers(blob.read_at(0, FIRST_BYTES)):
            raise ImageInvalid(f"layer {number} is {kind.name}", kind.hint)
    pairs = zip(image.layers, config.diff_ids, strict=True)
    return [Layer(blob, diff_id, number) for number, (blob, diff_id) in enumerate(pairs, 1)]


def check_words(config: ImageConfig) -> None:
    """Raises ImageInvalid for what no program could be given, so that no job fails for it. Bounds are the kernel's."""
    words = {"Env": config.env, "Entrypoint": config.entrypoint, "Cmd": config.cmd, "WorkingDir": (config.workdir,)}
    total = 0
    for key, texts in words.items():
        most = _MAX_PATH if key == "WorkingDir" else _MAX_WORD
        for text in texts:
            try:
                size = len(text.encode())
            except UnicodeEncodeError as error:
                raise ImageInvalid(f"image configuration: {key} is not valid Unicode: '{printable(text)}'") from error
            if "\0" in text:
                raise ImageInvalid(f"image configuration: {key} contains a NUL byte: '{printable(text)}'")
            if size > most:
                raise ImageInvalid(f"image configuration: {key} has a text of {size} bytes, the limit is {most}")
            total += size + _WORD_COST
    if total > _MAX_WORDS:
        raise ImageInvalid(
            f"image configuration: Env, Entrypoint and Cmd take {total} bytes, the limit is {_MAX_WORDS}",
            "it is Linux's limit on the arguments and variables of a program",
        )


def _bytes_to_read(layers: list[Layer]) -> int:
    """How much the layers expand to; 0 where one is compressed, so that it is not known."""
    return sum(layer.blob.size for layer in layers) if all(layer.is_plain() for layer in layers) else 0


def _settle(path: str) -> tuple[int, str]:
    """Size and sha256 of a finished file, once it is on disk; digested while the disk writes."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_PIECE))
    with open(path, "rb") as stream, ThreadPoolExecutor(1) as writer:
        on_disk = writer.submit(os.fsync, stream.fileno())
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])
        on_disk.result()
        return os.fstat(stream.fileno()).st_size, digest.hexdigest()
