"""Which manifest of an index is for the compute nodes, and what is said of manifests that are of no image."""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
from typing import Any

import pytest

from gateway.image.blob import Blob
from gateway.image.manifest import NotForUs
from gateway.sources.choice import Choice
from gateway.sources.oci_image import OciImage, Resolver
from gateway.sources.oci_layout import read_oci_layout
from tests.effort import assert_linear
from udiroot.errors import ImageInvalid, UsageError

OCI = "application/vnd.oci.image"
INDEX = f"{OCI}.index.v1+json"


class Blobs:
    """Manifests and configurations in memory."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def add(self, document: Any) -> dict[str, Any]:
        """Keep a document. Returns its descriptor."""
        text = document if isinstance(document, bytes) else json.dumps(document).encode()
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        self.held[digest] = text
        return {"digest": digest, "size": len(text)}

    def image(self, platform: Any = None, **config: Any) -> dict[str, Any]:
        """The entry of an image in an index; its configuration is for amd64 unless `config` states another."""
        document = {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": []}, "of": str(platform), **config}
        entry = self.add({"config": self.add(document), "layers": []})
        return entry if platform is None else {**entry, "platform": platform}

    def manifest(self, digest: str, size: int) -> tuple[bytes, str]:
        return self.held[digest], ""

    def config(self, digest: str, size: int) -> bytes:
        return self.held[digest]

    def resolve(self, document: Any, arch: str = "amd64") -> OciImage:
        return Resolver(self, arch).image(json.dumps(document).encode(), "")

    def chosen(self, entries: list[Any], arch: str = "amd64") -> int:
        """Which of the entries is taken."""
        found = self.resolve({"manifests": entries}, arch)
        return [entry["digest"] for entry in entries].index(found.digest)


def platform(text: str, **more: Any) -> dict[str, Any]:
    system, _, rest = text.partition("/")
    name, _, variant = rest.partition("/")
    return {"os": system, "architecture": name, **({"variant": variant} if variant else {}), **more}


ATTESTATION = {"vnd.docker.reference.type": "attestation-manifest"}


@pytest.mark.parametrize(
    ("arch", "platforms", "chosen"),
    [
        ("amd64", ["linux/amd64/v3", "linux/amd64"], 1),
        ("amd64", ["linux/amd64/v2", "linux/amd64/v1"], 1),
        ("amd64/v3", ["linux/amd64", "linux/amd64/v3"], 1),
        ("amd64/v3", ["linux/amd64/v4", "linux/amd64/v2", "linux/amd64"], 1),
        ("amd64", ["linux/x86_64"], 0),
        ("amd64", ["linux/arm64", "Linux/X86-64"], 1),
        ("x86_64", ["linux/arm64", "linux/amd64"], 1),
        ("arm64", ["linux/amd64", "linux/arm/v7", "linux/arm64/v8"], 2),
        ("arm64", ["linux/aarch64"], 0),
        ("arm", ["linux/arm/v8", "linux/arm/v6", "linux/arm/v7"], 2),
        ("amd64", ["windows/amd64", "linux/amd64"], 1),
        ("amd64", ["linux/386", "/amd64"], 1),
        ("amd64", [None, "linux/amd64"], 1),
        ("amd64", ["linux/arm64", None], 1),
        ("amd64", ["linux/arm64", {}], 1),
        ("amd64", ["linux/arm64", {"os": "linux"}], 1),
        ("amd64", ["linux/amd64/v3", None], 1),
        ("amd64", ["unknown/unknown", None], 1),
        ("amd64", ["linux/amd64", "linux/amd64"], 0),
    ],
)
def test_the_entry_for_the_nodes(arch: str, platforms: list[Any], chosen: int) -> None:
    blobs = Blobs()
    config = {"architecture": arch.partition("/")[0]}
    stated = [platform(each) if isinstance(each, str) else each for each in platforms]
    entries = [blobs.image(each, number=number, **config) for number, each in enumerate(stated)]
    assert blobs.chosen(entries, arch) == chosen


def test_an_entry_without_platform_is_judged_by_its_configuration() -> None:
    blobs = Blobs()
    arm, ours = blobs.image(architecture="aarch64"), blobs.image(architecture="x86_64")
    windows = blobs.image(os="windows")
    assert blobs.chosen([arm, windows, ours]) == 2
    assert blobs.chosen([arm, ours], "arm64") == 0
    with pytest.raises(NotForUs, match="image is for arm64, compute nodes are amd64"):
        blobs.chosen([arm, windows])
    with pytest.raises(NotForUs, match="image is for windows, compute nodes run Linux"):
        blobs.chosen([windows])
    high = blobs.image(variant="v3")
    with pytest.raises(NotForUs, match="image is for amd64/v3, compute nodes are amd64"):
        blobs.chosen([high])
    assert blobs.chosen([high], "amd64/v3") == 0


def test_an_artifact_among_images_is_passed_over() -> None:
    blobs = Blobs()
    chart = blobs.add({"config": {"mediaType": "application/vnd.cncf.helm.config.v1+json"}, "layers": []})
    assert blobs.chosen([chart, blobs.image()]) == 1
    with pytest.raises(ImageInvalid, match="Helm chart"):
        blobs.chosen([chart])


def test_attestations_are_no_images() -> None:
    blobs = Blobs()
    image = blobs.image()
    unmarked = {**blobs.image(number=1), "annotations": ATTESTATION}
    assert blobs.chosen([unmarked, image]) == 1
    with pytest.raises(ImageInvalid, match="no version for amd64"):
        blobs.chosen([blobs.image(platform("unknown/unknown")), unmarked])


def test_what_there_is_instead_is_named() -> None:
    blobs = Blobs()
    with pytest.raises(ImageInvalid, match="image list is empty"):
        blobs.chosen([])
    others = [blobs.image(platform(each)) for each in ("linux/arm64", "windows/amd64", "linux/amd64/v3", "linux/arm64")]
    with pytest.raises(ImageInvalid, match="no version for amd64") as raised:
        blobs.chosen(others)
    assert raised.value.hint.startswith("it has: arm64, windows/amd64, amd64/v3;")
    assert "gateway.architecture" in raised.value.hint


def test_indexes_in_indexes() -> None:
    blobs = Blobs()
    image = blobs.image(platform("linux/amd64"))
    document: Any = {"manifests": [image]}
    for _ in range(3):
        assert blobs.resolve(document).digest == image["digest"]
        document = {"mediaType": INDEX, "manifests": [{**blobs.add(document), "mediaType": INDEX}]}
    with pytest.raises(ImageInvalid, match="nested too deep"):
        blobs.resolve({"manifests": [blobs.add(document)]})


def test_of_an_index_of_many_without_platform_a_bounded_number_is_read() -> None:
    blobs = Blobs()
    entries = [blobs.image(architecture="s390x", number=number) for number in range(100)]
    with pytest.raises(ImageInvalid, match="none of the first 32 manifests"):
        blobs.chosen(entries)


@pytest.mark.parametrize(
    ("manifest", "message", "hint"),
    [
        ({"config": {"mediaType": "application/vnd.cncf.helm.config.v1+json"}, "layers": []}, "Helm chart", "images"),
        ({"config": {"mediaType": "application/vnd.wasm.config.v0+json"}, "layers": []}, "WebAssembly", "Linux"),
        ({"config": {"mediaType": f"{OCI}.config.v1+json"}, "layers": [{"mediaType": "application/wasm"}]},
         "WebAssembly", "Linux"),
        ({"config": {"mediaType": "application/vnd.sylabs.sif.config.v1+json"}, "layers": []}, "SIF image", "built"),
        ({"artifactType": "application/vnd.example+json", "layers": [], "config": None}, "no config and layers",
         "application/vnd.example"),
        ({"config": {"mediaType": "application/vnd.oci.empty.v1+json"},
          "layers": [{"mediaType": "application/vnd.in-toto+json"}]}, "attestation", "about"),
        ({"config": {"mediaType": f"{OCI}.config.v1+json"},
          "layers": [{}, {"mediaType": f"{OCI}.layer.v1.tar+gzip+encrypted"}]}, "layer 2 is encrypted", "publisher"),
        ({"layers": [], "config": {"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json"}}, "signature", ""),
    ],
)  # fmt: skip
def test_what_is_no_image_is_named(manifest: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(ImageInvalid, match=message) as raised:
        Blobs().resolve(manifest)
    assert hint in raised.value.hint != ""


def test_an_artifact_of_an_unknown_type_is_named_unless_it_is_an_image() -> None:
    blobs = Blobs()
    config = {**blobs.add({"kind": "something"}), "mediaType": "application/vnd.example.config+json"}
    with pytest.raises(ImageInvalid, match=r"artifact of type application/vnd\.example\.config"):
        blobs.resolve({"config": config, "layers": []})
    config = {**blobs.add({"rootfs": {"diff_ids": []}}), "mediaType": "application/octet-stream"}
    assert blobs.resolve({"config": config, "layers": []})


def test_a_compressed_manifest_is_named() -> None:
    with pytest.raises(ImageInvalid, match="manifest is compressed with gzip, not JSON"):
        Resolver(Blobs(), "amd64").image(gzip.compress(b"{}"), "")
    with pytest.raises(ImageInvalid, match="manifest is an HTML page, not JSON"):
        Resolver(Blobs(), "amd64").image(b"\n<!doctype html>", "")


@pytest.mark.parametrize("named", [True, False])
def test_a_layout_of_many_images_is_read_in_linear_time_and_listed_in_one_line(named: bool) -> None:
    def entries(count: int) -> Any:
        return [
            {"annotations": {"org.opencontainers.image.ref.name": f"n{number}" if named else ""}}
            for number in range(count)
        ]

    class Layout:
        def __init__(self, tmp: Any, count: int) -> None:
            tmp.write(json.dumps({"manifests": entries(count)}).encode())
            tmp.flush()
            self._index = Blob.of_file(tmp.fileno())

        def find(self, name: str) -> Blob | None:
            return self._index

    def read(count: int) -> None:
        with tempfile.TemporaryFile() as stream, pytest.raises(UsageError) as caught:
            read_oci_layout(Layout(stream, count), "", "amd64", 4 << 20)
        assert len(caught.value.message) < 3000 and f"and {count - 20} more" in caught.value.message

    assert_linear(read, 5_000)


def test_what_there_is_instead_is_listed_in_one_line() -> None:
    entries = [{"digest": "", "platform": platform(f"linux/other{number}")} for number in range(5000)]
    with pytest.raises(ImageInvalid) as caught:
        Blobs().resolve({"manifests": entries})
    assert len(caught.value.hint) < 3000 and "and 4980 more" in caught.value.hint
    assert len(Choice([[f"n{number}" for number in range(5000)], ["m"]], "archive", "{}").unclear([0]).message) < 3000
