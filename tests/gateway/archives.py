"""Images made in code: layers as lists of entries, saved as `docker save` does or as an OCI layout."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import zstandard


@dataclass(frozen=True)
class Entry:
    """One member of a layer. `kind` is a tar type; names are bytes, so that they may be anything."""

    name: bytes
    kind: bytes = tarfile.REGTYPE
    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_600_000_000
    target: bytes = b""
    xattrs: dict[str, bytes] = field(default_factory=dict)

    def info(self) -> tarfile.TarInfo:
        info = tarfile.TarInfo(os.fsdecode(self.name))
        info.type, info.mode, info.uid, info.gid, info.mtime = self.kind, self.mode, self.uid, self.gid, self.mtime
        info.linkname = os.fsdecode(self.target)
        if self.kind == tarfile.REGTYPE:
            info.size = len(self.data)
        # tarfile writes PAX values as UTF-8 with surrogateescape, so bytes pass through unchanged
        info.pax_headers = {f"SCHILY.xattr.{key}": os.fsdecode(value) for key, value in self.xattrs.items()}
        return info


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else os.fsencode(text)


def file(name: str | bytes, data: bytes = b"data", **more: Any) -> Entry:
    return Entry(_bytes(name), data=data, **more)


def directory(name: str | bytes, mode: int = 0o755, **more: Any) -> Entry:
    return Entry(_bytes(name), tarfile.DIRTYPE, mode=mode, **more)


def symlink(name: str | bytes, target: str | bytes, **more: Any) -> Entry:
    return Entry(_bytes(name), tarfile.SYMTYPE, mode=0o777, target=_bytes(target), **more)


def hardlink(name: str | bytes, target: str | bytes, **more: Any) -> Entry:
    return Entry(_bytes(name), tarfile.LNKTYPE, target=_bytes(target), **more)


def another_name(name: str | bytes, of: Entry) -> Entry:
    """A hard link as container engines write it: with its inode's attributes. Docker would set others; umoci not."""
    return dataclasses.replace(of, name=_bytes(name), kind=tarfile.LNKTYPE, data=b"", target=of.name, xattrs={})


def whiteout(path: str) -> Entry:
    """The marker that hides `path` of lower layers."""
    parent, _, name = path.rpartition("/")
    return file(f"{parent}/.wh.{name}" if parent else f".wh.{name}", b"", mode=0)


def opaque(path: str) -> Entry:
    """The marker that hides what lower layers have below `path`."""
    return file(f"{path}/.wh..wh..opq" if path else ".wh..wh..opq", b"", mode=0)


BASE = (directory("bin"), file("bin/sh", b"#!shell", mode=0o755))
"""What every image needs to be taken at all."""

Layer = Sequence[Entry] | bytes
"""Entries, or the bytes of a layer as they stand."""


def layer_tar(entries: Iterable[Entry]) -> bytes:
    """An uncompressed layer."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
        for entry in entries:
            archive.addfile(entry.info(), io.BytesIO(entry.data))
    return stream.getvalue()


def compressed(data: bytes, how: str) -> bytes:
    """`plain`, `gzip`, `zstd`; `gzip-members`, several one after the other; `zstd-frames`, the same with skippable ones
    before, between and behind them."""
    if how == "gzip":
        return gzip.compress(data, 1, mtime=0)
    if how == "zstd":
        return zstandard.ZstdCompressor(level=1).compress(data)
    if how == "zstd-frames":
        skipped = b"\x5f\x2a\x4d\x18" + (100).to_bytes(4, "little") + bytes(100)
        third = len(data) // 3 + 1
        frames = (zstandard.compress(data[at : at + third], 1) for at in range(0, len(data), third))
        return skipped + skipped.join(frames) + skipped
    if how == "gzip-members":
        third = len(data) // 3 + 1
        return b"".join(gzip.compress(data[at : at + third], 1, mtime=0) for at in range(0, len(data), third))
    return data


def image_config(layers: Sequence[bytes], **changes: Any) -> bytes:
    """The configuration of an image of these uncompressed layers."""
    document: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
    }
    return json.dumps({**document, **changes}, sort_keys=True).encode()


def make_archive(
    path: str | os.PathLike[str],
    layers: Sequence[Layer],
    *,
    config: bytes | dict[str, Any] | None = None,
    tags: Sequence[str] = ("test:1",),
    how: str = "plain",
    style: str = "blobs",
) -> str:
    """A `docker save` archive at `path`. Returns the image's id.

    `config` replaces the configuration, or (a dict) parts of it. `style` is `blobs` (Docker 25 and later) or `hashes`
    (`<hash>/layer.tar`, where a layer that appears twice is a symbolic link the second time).
    """
    plain = [layer if isinstance(layer, bytes) else layer_tar(layer) for layer in layers]
    text = config if isinstance(config, bytes) else image_config(plain, **(config or {}))
    image_id = hashlib.sha256(text).hexdigest()
    with tarfile.open(path, "w") as archive:
        names: dict[str, str] = {}
        order = [_add_layer(archive, names, layer, compressed(layer, how), style) for layer in plain]
        config_name = f"blobs/sha256/{image_id}" if style == "blobs" else f"{image_id}.json"
        _add(archive, config_name, text)
        manifest = [{"Config": config_name, "RepoTags": list(tags) or None, "Layers": order}]
        _add(archive, "manifest.json", json.dumps(manifest).encode())
    return image_id


def make_oci_layout(
    path: str | os.PathLike[str],
    layers: Sequence[Layer],
    *,
    config: bytes | dict[str, Any] | None = None,
    tag: str = "1",
    how: str = "plain",
) -> str:
    """An OCI layout in the directory `path`, which must not exist. Returns the image's id."""
    blobs = os.path.join(path, "blobs", "sha256")
    os.makedirs(blobs)
    plain = [layer if isinstance(layer, bytes) else layer_tar(layer) for layer in layers]
    text = config if isinstance(config, bytes) else image_config(plain, **(config or {}))
    suffix = {"plain": "", "zstd": "+zstd"}.get(how, "+gzip")
    media = f"application/vnd.oci.image.layer.v1.tar{suffix}"
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _store(blobs, text, "application/vnd.oci.image.config.v1+json"),
        "layers": [_store(blobs, compressed(layer, how), media) for layer in plain],
    }
    entry = _store(blobs, json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    _write(os.path.join(path, "index.json"), json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
    _write(os.path.join(path, "oci-layout"), b'{"imageLayoutVersion": "1.0.0"}')
    return hashlib.sha256(text).hexdigest()


def _add_layer(archive: tarfile.TarFile, names: dict[str, str], plain: bytes, stored: bytes, style: str) -> str:
    """Add a layer; `names` holds those that are there already, by what they contain. Returns its name."""
    digest = _digest(plain)
    if style == "blobs":
        name = f"blobs/sha256/{hashlib.sha256(stored).hexdigest()}"
        if digest not in names:
            _add(archive, name, stored)
    else:
        name = f"{hashlib.sha256(plain + bytes([len(archive.getmembers())])).hexdigest()}/layer.tar"
        if digest in names:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"../{names[digest]}"
            archive.addfile(link)
        else:
            _add(archive, name, stored)
    names.setdefault(digest, name)
    return name


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _store(blobs: str, data: bytes, media: str) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    _write(os.path.join(blobs, digest), data)
    return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(data)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
