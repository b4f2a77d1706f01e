"""What users name as a source, and what archives and layouts may hold."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from gateway.image.manifest import ImageConfig, SourceImage
from gateway.sources.files import DockerArchive, FileSource, OciDirectory
from gateway.sources.kinds import parse_source
from gateway.sources.upstream import DaemonSource, RegistrySource, UpstreamSource
from tests.gateway.archives import BASE, file, layer_tar, make_archive, make_oci_layout
from udiroot.errors import ImageInvalid, NotFound, UdiError, UsageError

LAYERS = [BASE, [file("a")], BASE]


def image_of(source: str, limit: int = 1 << 20) -> SourceImage:
    parsed = parse_source(source)
    assert isinstance(parsed, FileSource)
    opened = parsed.open("amd64", limit)
    try:
        image = opened.read("amd64", limit)
        assert [layer.read_at(0, 1) != b"" for layer in image.layers] == [True] * len(image.layers)
        return image
    finally:
        opened.close()


def saved(path: Path, files: dict[str, Any]) -> str:
    """An archive of these files; what is not bytes becomes JSON."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return f"docker-archive:{path}"


def test_spellings(tmp_path: Path) -> None:
    assert parse_source("docker-archive:/x/y.tar:app:1") == DockerArchive("/x/y.tar", "app:1")
    assert parse_source("oci:dir:12") == OciDirectory("dir", "12")
    odd = tmp_path / "a:b.tar"
    odd.touch()
    assert parse_source(f"docker-archive:{odd}") == DockerArchive(str(odd))


@pytest.mark.parametrize(
    ("text", "kind", "reference"),
    [
        ("docker://debian", RegistrySource, "debian:latest"),
        ("debian:12", RegistrySource, "debian:12"),
        ("docker:24", RegistrySource, "docker:24"),
        ("oci", RegistrySource, "oci:latest"),
        ("docker://r.test:5000/a/b@sha256:" + "0" * 64, RegistrySource, "r.test:5000/a/b@sha256:" + "0" * 64),
        ("docker-daemon:app:1", DaemonSource, "app:1"),
    ],
)
def test_a_name_alone_is_an_image_of_a_registry(text: str, kind: type[UpstreamSource], reference: str) -> None:
    assert parse_source(text) == kind(reference)


@pytest.mark.parametrize(
    "text",
    ["", "Debian", "tar:/x", "docker-archive:", "oci:", "docker-archive:a\0b", "docker://", "docker://id:" + "0" * 64,
     "id:" + "0" * 64, "docker-daemon:", "docker://x y", "https://r.test/x"],
)  # fmt: skip
def test_what_is_no_source(text: str) -> None:
    with pytest.raises(UsageError):
        parse_source(text)


@pytest.mark.parametrize("style", ["blobs", "hashes"])
def test_both_formats_of_docker_save(tmp_path: Path, style: str) -> None:
    image_id = make_archive(tmp_path / "i.tar", LAYERS, style=style, tags=["app:1", "app:2"])
    image = image_of(f"docker-archive:{tmp_path}/i.tar")
    assert (image.id, image.name, len(image.layers)) == (image_id, "app:1", 3)
    assert image.layers[0] == image.layers[2], "a link to a layer is that layer"
    assert image_of(f"docker-archive:{tmp_path}/i.tar:app:2").name == "app:2"
    with pytest.raises(NotFound, match="app:3"):
        image_of(f"docker-archive:{tmp_path}/i.tar:app:3")


def test_an_oci_layout_and_an_oci_archive(tmp_path: Path) -> None:
    image_id = make_oci_layout(tmp_path / "oci", LAYERS, how="zstd", tag="12")
    with tarfile.open(tmp_path / "oci.tar", "w") as archive:
        archive.add(tmp_path / "oci", ".")
    for source in (f"oci:{tmp_path}/oci", f"oci:{tmp_path}/oci:12", f"oci-archive:{tmp_path}/oci.tar:12"):
        assert image_of(source).id == image_id
    with pytest.raises(NotFound, match="tagged '13'"):
        image_of(f"oci:{tmp_path}/oci:13")
    with pytest.raises(ImageInvalid, match=r"no manifest\.json") as caught:
        image_of(f"docker-archive:{tmp_path}/oci.tar")
    assert "oci-archive:" in caught.value.hint


def test_an_oci_index_of_several_architectures(tmp_path: Path) -> None:
    make_oci_layout(tmp_path / "oci", LAYERS)
    index = json.loads((tmp_path / "oci" / "index.json").read_text())
    [entry] = index["manifests"]
    other = {**entry, "digest": "sha256:" + "0" * 64, "platform": {"architecture": "arm64", "os": "linux"}}
    index["manifests"] = [other, {**entry, "platform": {"architecture": "amd64", "os": "linux"}}]
    (tmp_path / "oci" / "index.json").write_text(json.dumps(index))
    assert image_of(f"oci:{tmp_path}/oci").digest == entry["digest"]
    index["manifests"] = [other, other]
    (tmp_path / "oci" / "index.json").write_text(json.dumps(index))
    with pytest.raises(ImageInvalid, match="no version for amd64"):
        image_of(f"oci:{tmp_path}/oci")


def test_a_manifest_or_configuration_that_is_not_its_digest(tmp_path: Path) -> None:
    for number in range(2):
        directory = tmp_path / f"oci{number}"
        make_oci_layout(directory, LAYERS)
        manifest = json.loads((directory / "index.json").read_text())["manifests"][0]["digest"]
        path = directory / "blobs" / "sha256" / manifest[7:]
        if number:
            path = directory / "blobs" / "sha256" / json.loads(path.read_text())["config"]["digest"][7:]
        path.write_bytes(path.read_bytes() + b" ")
        with pytest.raises(ImageInvalid, match="does not match its digest"):
            image_of(f"oci:{directory}")


@pytest.mark.parametrize("digest", ["sha256:../../../../etc/passwd", "sha256:ABC", "md5:" + "0" * 32, 7, None])
def test_a_digest_is_checked_before_it_becomes_a_path(tmp_path: Path, digest: object) -> None:
    directory = tmp_path / "oci"
    directory.mkdir()
    (directory / "index.json").write_text(json.dumps({"manifests": [{"digest": digest}]}))
    with pytest.raises(ImageInvalid, match="not sha256: and 64 hex digits"):
        image_of(f"oci:{directory}")


def test_several_images_in_one_archive(tmp_path: Path) -> None:
    layer = layer_tar(BASE)
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    one = {"Config": "c", "Layers": ["l"], "RepoTags": ["one:1"]}
    two = {"Config": "c", "Layers": ["l"], "RepoTags": ["two:latest"]}
    source = saved(
        tmp_path / "i.tar", {"c": {"rootfs": {"diff_ids": [digest]}}, "l": layer, "manifest.json": [one, two]}
    )
    with pytest.raises(UsageError, match="2 images: one:1, two:latest"):
        image_of(source)
    assert image_of(f"{source}:two").name == "two"


def _two(tmp_path: Path, first: dict[str, Any], second: dict[str, Any]) -> tuple[str, list[str]]:
    """An archive of two images, with these parts of their entries and (`config`) configurations, and their ids."""
    layer = layer_tar(BASE)
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    files: dict[str, Any] = {"l": layer}
    entries, ids = [], []
    for number, entry in enumerate((first, second)):
        text = json.dumps({"rootfs": {"diff_ids": [digest]}, "number": number, **entry.pop("config", {})}).encode()
        files[f"{number}.json"] = text
        ids.append(hashlib.sha256(text).hexdigest())
        entries.append({"Config": f"{number}.json", "Layers": ["l"], **entry})
    return saved(tmp_path / "i.tar", files | {"manifest.json": entries}), ids


def test_images_without_a_name_are_chosen_by_number(tmp_path: Path) -> None:
    source, ids = _two(tmp_path, {}, {"RepoTags": ["two:1"]})
    with pytest.raises(UsageError, match=r"archive has 2 images: @0 \(without a name\), two:1") as caught:
        image_of(source)
    assert caught.value.hint == "choose one, such as docker-archive:FILE:@0"
    assert [image_of(f"{source}:@{number}").id for number in range(2)] == ids
    assert [image_of(f"{source}:@{number}").name for number in range(2)] == ["", "two:1"]
    assert image_of(f"{source}:two:1").id == ids[1]
    with pytest.raises(NotFound, match="no image tagged '@2'") as absent:
        image_of(f"{source}:@2")
    assert absent.value.hint == "it has: @0 (without a name), two:1"
    both, _ = _two(tmp_path, {}, {"RepoTags": []})
    with pytest.raises(UsageError, match=r"@0 .*, @1 "):
        image_of(both)


@pytest.mark.parametrize("held", ["x:1", "docker.io/library/x:1", "index.docker.io/library/x:1", "library/x:1"])
@pytest.mark.parametrize("wanted", ["x:1", "docker.io/library/x:1", "docker.io/x:1"])
def test_one_name_in_an_archive_whatever_its_spelling(tmp_path: Path, held: str, wanted: str) -> None:
    source, ids = _two(tmp_path, {"RepoTags": ["other.test/x:1"]}, {"RepoTags": [held]})
    assert image_of(f"{source}:{wanted}").id == ids[1]


@pytest.mark.parametrize("tag", ["", ":x:1", ":docker.io/library/x"])
def test_of_two_images_with_one_name_the_one_for_us(tmp_path: Path, tag: str) -> None:
    name = "x:1" if tag != ":docker.io/library/x" else "x"
    for ours, configs in enumerate([("x86_64", "arm64"), ("aarch64", "amd64")]):
        entries = [{"RepoTags": [name], "config": {"architecture": each}} for each in configs]
        source, ids = _two(tmp_path, *entries)
        assert image_of(f"{source}{tag}").id == ids[ours]
    source, _ = _two(tmp_path, *({"RepoTags": [name], "config": {"architecture": "s390x"}} for _ in range(2)))
    with pytest.raises(ImageInvalid, match="image is for s390x"):
        image_of(f"{source}{tag}")


@pytest.mark.parametrize("spelling", ["./{}", "/{}", "a/../{}", ".//{}", "././{}"])
def test_a_member_is_found_however_its_path_is_spelled(tmp_path: Path, spelling: str) -> None:
    layer = layer_tar(BASE)
    config = {"rootfs": {"diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}}
    entry = {"Config": spelling.format("c.json"), "Layers": [spelling.format("l/layer.tar")]}
    files = {"c.json": config, "l/layer.tar": layer, "manifest.json": [entry]}
    assert image_of(saved(tmp_path / "i.tar", files)).layers
    assert image_of(saved(tmp_path / "j.tar", {f"./{name}": content for name, content in files.items()})).layers


def _layout(tmp_path: Path, *entries: dict[str, Any]) -> tuple[str, list[str]]:
    """A layout with an image for each of these entries, whose `config` is of its configuration, and their ids."""
    directory = tmp_path / f"oci{len(list(tmp_path.iterdir()))}"
    listed, ids = [], []
    for number, entry in enumerate(entries):
        part = tmp_path / f"part-{directory.name}-{number}"
        config = {"number": number, **entry.pop("config", {})}
        ids.append(make_oci_layout(part, LAYERS, config=config))
        [found] = json.loads((part / "index.json").read_text())["manifests"]
        del found["annotations"]
        listed.append({**found, **entry})
        shutil.copytree(part, directory, dirs_exist_ok=True)
    (directory / "index.json").write_text(json.dumps({"manifests": listed}))
    return f"oci:{directory}", ids


NAMED = {"annotations": {"org.opencontainers.image.ref.name": "1"}}


def test_of_two_entries_of_one_tag_the_one_for_us(tmp_path: Path) -> None:
    arm, ours = {"architecture": "arm64", "os": "linux"}, {"architecture": "x86_64", "os": "linux"}
    for stated in (True, False):
        entries = [
            {**NAMED, "config": {"architecture": each["architecture"]}, **({"platform": each} if stated else {})}
            for each in (arm, ours)
        ]
        source, ids = _layout(tmp_path, *entries)
        assert image_of(f"{source}:1").id == ids[1]
        assert image_of(source).id == ids[1]


def test_images_of_a_layout_without_a_tag_are_chosen_by_number(tmp_path: Path) -> None:
    source, ids = _layout(tmp_path, {}, {})
    with pytest.raises(UsageError, match=r"OCI layout has 2 images: @0 .*, @1 ") as caught:
        image_of(source)
    assert caught.value.hint == "choose one, such as oci:DIR:@0"
    assert [image_of(f"{source}:@{number}").id for number in range(2)] == ids
    attestation = {"platform": {"architecture": "unknown", "os": "unknown"}}
    source, ids = _layout(tmp_path, attestation, {"platform": {"architecture": "amd64"}})
    assert image_of(source).id == ids[1], "an attestation is no second image"
    with pytest.raises(NotFound, match="tagged '@7'"):
        image_of(f"{source}:@7")


@pytest.mark.parametrize(
    ("start", "said", "hint"),
    [
        (b"\xfd7zXZ\0", "compressed with xz", "xz -d"),
        (b"BZh91AY", "compressed with bzip2", "bzip2 -d"),
        (b"\x1f\x8b", "compressed with gzip", "gunzip"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd", "zstd -d"),
        (b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0", "SIF image", "Docker or OCI image"),
        (bytes(32) + b"SIF_MAGIC\0", "SIF image", "Docker or OCI image"),
        (b"hsqs", "squashfs", "Docker or OCI image"),
        (b"PK\x03\x04", "zip", "docker save"),
        (b"\0asm\1\0\0\0", "WebAssembly", "Linux"),
    ],
)
def test_what_is_no_archive_is_named(tmp_path: Path, start: bytes, said: str, hint: str) -> None:
    (tmp_path / "file").write_bytes(start + bytes(2000))
    for kind in ("docker-archive", "oci-archive"):
        with pytest.raises(ImageInvalid, match=f"archive is .*{said}") as caught:
            image_of(f"{kind}:{tmp_path}/file")
        assert hint in caught.value.hint


def test_a_compressed_manifest_in_an_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageInvalid, match=r"manifest\.json is compressed with gzip, not JSON"):
        image_of(saved(tmp_path / "i.tar", {"manifest.json": gzip.compress(b"[]")}))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no manifest.json"),
        ({"manifest.json": b"{"}, "not JSON"),
        ({"manifest.json": b"[" * 5000}, "not JSON"),
        ({"manifest.json": {}}, "not a list"),
        ({"manifest.json": []}, "lists no image"),
        ({"manifest.json": [{"Layers": []}]}, "names no configuration"),
        ({"manifest.json": [{"Config": "c", "Layers": []}]}, "no member 'c'"),
        ({"manifest.json": [{"Config": "c", "Layers": 3}], "c": {}}, "names no layers"),
        ({"manifest.json": [{"Config": "c", "Layers": ["l\x1b"]}], "c": {}}, r"no member 'l\x1b'"),
        ({"manifest.json": [{"Config": "c", "Layers": [], "RepoTags": 3}], "c": {}}, "RepoTags"),
        ({"manifest.json": b" " * 2000}, "the limit is"),
    ],
)
def test_archives_that_hold_no_image(tmp_path: Path, files: dict[str, Any], said: str) -> None:
    with pytest.raises(ImageInvalid) as caught:
        image_of(saved(tmp_path / "i.tar", files), limit=1900 if said == "the limit is" else 1 << 20)
    assert said in caught.value.message


def test_links_in_a_circle(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "i.tar", "w") as archive:
        for name, target in (("manifest.json", "b"), ("b", "manifest.json")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    with pytest.raises(ImageInvalid, match="loop"):
        image_of(f"docker-archive:{tmp_path}/i.tar")


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for source in (f"docker-archive:{tmp_path}/none", f"docker-archive:{tmp_path}", f"docker-archive:{tmp_path}/fifo"):
        with pytest.raises(UdiError):
            image_of(source)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"rootfs": {"diff_ids": ["x"]}},
        {"rootfs": {"diff_ids": []}, "config": 3},
        {"rootfs": {"diff_ids": []}, "config": {"Env": [3]}},
        {"rootfs": {"diff_ids": []}, "config": {"Labels": {"a": 3}}},
        {"rootfs": {"diff_ids": []}, "config": {"WorkingDir": 3}},
        {"rootfs": {"diff_ids": []}, "config": {"Volumes": []}, "architecture": 3},
    ],
)
def test_configurations_that_are_none(document: object) -> None:
    with pytest.raises(ImageInvalid):
        ImageConfig.parse(json.dumps(document).encode())


def test_an_image_without_layers_is_saved_with_null_for_them(tmp_path: Path) -> None:
    """As docker save writes an empty list."""
    source = saved(tmp_path / "i.tar", {"manifest.json": [{"Config": "c", "Layers": None}], "c": {"rootfs": {}}})
    assert image_of(source).layers == ()


def test_a_sparse_member_of_an_archive_is_named(tmp_path: Path) -> None:
    with open(tmp_path / "c", "wb") as stream:
        stream.write(b"{}")
        stream.truncate(1 << 20)
    (tmp_path / "manifest.json").write_text('[{"Config": "c", "Layers": []}]')
    for form in ("gnu", "pax"):
        names = [f"--format={form}", "-Scf", str(tmp_path / "i.tar"), "-C", str(tmp_path), "c", "manifest.json"]
        subprocess.run(["/bin/tar", *names], check=True)
        with pytest.raises(ImageInvalid, match="'c' is a sparse file in the archive") as caught:
            image_of(f"docker-archive:{tmp_path}/i.tar")
        assert "--sparse" in caught.value.hint
