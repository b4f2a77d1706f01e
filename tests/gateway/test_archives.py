"""Archives as people have them: of every Docker, of podman and skopeo, compressed as a whole, with several images."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.gateway.archives import BASE, Entry, file, layer_tar, make_archive, make_oci_layout, whiteout
from tests.gateway.dockerd import Dockerd
from tests.gateway.service import ANNA, BERT, Service, directory_for_all
from tests.gateway.support import Found, convert_source, mounted, needs_root, tree_of
from udiroot.errors import ImageInvalid, NotFound, UdiError, UpstreamFailed, UsageError

pytestmark = needs_root

LAYERS: Sequence[Sequence[Entry]] = [BASE, [file("etc/a", b"a" * 3000), file("b")], [whiteout("b")], BASE]
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "gzip twice over": lambda data: gzip.compress(data[:5000]) + gzip.compress(data[5000:]),
    "zstd": zstandard.compress,
    "xz": lzma.compress,
    "xz in streams": lambda data: lzma.compress(data[:5000]) + bytes(8) + lzma.compress(data[5000:]) + bytes(4),
    "bzip2": bz2.compress,
    "bzip2 in streams": lambda data: bz2.compress(data[:5000]) + bz2.compress(data[5000:]),
}


def run(*words: object) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def packed(path: Path, how: str) -> Path:
    """The file compressed, beside it."""
    target = path.with_name(f"{path.name}.{how.replace(' ', '-')}")
    target.write_bytes(PACKED[how](path.read_bytes()))
    return target


def id_of(source: str, directory: Path, **settings: object) -> str:
    output = directory / "converted"
    output.unlink(missing_ok=True)
    return convert_source(source, output, **settings).id


def tree_of_image(image: Path) -> dict[bytes, Found]:
    with mounted(image) as root:
        return tree_of(root)


def make_v1(
    path: Path, layers: Sequence[Sequence[Entry]], names: dict[str, dict[str, int]] | None, **changes: Any
) -> list[str]:
    """What Docker 1.9 and earlier save, by Docker's Image Specification v1.0.0; the layers' ids from the lowest up.

    `names`: repository → tag → which layer is its top. `changes` are made to the JSON of each layer.
    """
    ids = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(len(layers))]
    with tarfile.open(path, "w") as archive:
        for number, layer in enumerate(layers):
            document: dict[str, Any] = {
                "id": ids[number],
                "created": "2014-06-10T19:30:46.924Z",
                "container": "0" * 64,
                "container_config": {"Cmd": ["x"]},
                "docker_version": "1.9.1",
                "config": {"Env": ["PATH=/bin", f"TOP={number}"], "Cmd": ["/bin/sh"], "WorkingDir": "/etc"},
                "architecture": "amd64",
                "os": "linux",
                "Size": 271828,
            }
            if number:
                document["parent"] = ids[number - 1]
            for name, content in (
                ("VERSION", b"1.0"),
                ("json", json.dumps({**document, **changes}).encode()),
                ("layer.tar", layer_tar(layer)),
            ):
                _add(archive, f"{ids[number]}/{name}", content)
        if names is not None:
            listed = {name: {tag: ids[top] for tag, top in tags.items()} for name, tags in names.items()}
            _add(archive, "repositories", json.dumps(listed).encode())
    return ids


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    with Dockerd(tmp_path_factory.mktemp("docker") / "d") as running:
        yield running


def _save(daemon: Dockerd, path: Path, *names: str) -> None:
    run("docker", "-H", daemon.socket, "save", "-o", path, *names)


def test_what_docker_saves_and_exports_in_every_compression(daemon: Dockerd, tmp_path: Path) -> None:
    """Docker's own archives of one and of several images; the exported tree is the same files without the rest."""
    wanted = make_archive(tmp_path / "made.tar", LAYERS, tags=("one:1",), style="hashes")
    other = make_archive(tmp_path / "other.tar", [*LAYERS, [file("c")]], tags=("two:1",), style="hashes")
    daemon.load(tmp_path / "made.tar")
    daemon.load(tmp_path / "other.tar")
    _save(daemon, tmp_path / "one.tar", "one:1")
    _save(daemon, tmp_path / "both.tar", "one:1", "two:1")
    for how in PACKED:
        assert id_of(f"docker-archive:{packed(tmp_path / 'one.tar', how)}", tmp_path) == wanted, how
    both = packed(tmp_path / "both.tar", "gzip")
    assert id_of(f"docker-archive:{both}:docker.io/library/two:1", tmp_path) == other
    with pytest.raises(UsageError, match=r"2 images: (one:1, two:1|two:1, one:1)$"):
        id_of(f"docker-archive:{both}", tmp_path)
    with pytest.raises(NotFound) as caught:
        id_of(f"docker-archive:{both}:three", tmp_path)
    assert caught.value.hint in ("it has: one:1, two:1", "it has: two:1, one:1")
    container = daemon.client.create_container("one:1", ["/bin/sh"])["Id"]
    run("docker", "-H", daemon.socket, "export", "-o", tmp_path / "tree.tar", container)
    daemon.client.remove_container(container)
    ids = {id_of(f"rootfs-archive:{packed(tmp_path / 'tree.tar', how)}", tmp_path) for how in PACKED}
    assert ids == {id_of(f"rootfs-archive:{tmp_path}/tree.tar", tmp_path)}


def test_archives_of_dockers_before_manifests(daemon: Dockerd, tmp_path: Path) -> None:
    """Docker still loads them, and then has the very layers that are found here."""
    make_v1(tmp_path / "old.tar", LAYERS, {"old": {"1": 3}})
    run("docker", "-H", daemon.socket, "load", "-i", tmp_path / "old.tar")
    has = daemon.client.inspect_image("old:1")
    facts = convert_source(f"docker-archive:{tmp_path}/old.tar", tmp_path / "out")
    assert [f"sha256:{hashlib.sha256(layer_tar(layer)).hexdigest()}" for layer in LAYERS] == has["RootFS"]["Layers"]
    assert (list(facts.env), facts.workdir, list(facts.cmd)) == (has["Config"]["Env"], "/etc", ["/bin/sh"])
    ours = tree_of_image(tmp_path / "out")
    make_archive(tmp_path / "new.tar", LAYERS)
    convert_source(f"docker-archive:{tmp_path}/new.tar", tmp_path / "new")
    assert ours == tree_of_image(tmp_path / "new")
    again = tmp_path / "again.tar"
    _save(daemon, again, "old:1")
    convert_source(f"docker-archive:{again}", tmp_path / "saved")
    assert tree_of_image(tmp_path / "saved") == ours
    assert id_of(f"docker-archive:{packed(tmp_path / 'old.tar', 'xz')}", tmp_path) == facts.id


def test_images_of_an_old_archive_are_chosen_by_name_or_number(tmp_path: Path) -> None:
    path = tmp_path / "old.tar"
    make_v1(path, LAYERS, {"one": {"1": 1, "latest": 3}, "host:5000/two": {"x": 3}})
    top = convert_source(f"docker-archive:{path}:two:x".replace(":two", ":host:5000/two"), tmp_path / "a")
    assert "TOP=3" in top.env
    assert "TOP=1" in convert_source(f"docker-archive:{path}:one:1", tmp_path / "b").env
    assert id_of(f"docker-archive:{path}:one", tmp_path) == top.id
    with pytest.raises(UsageError, match="2 images: one:1, one:latest, host:5000/two:x"):
        id_of(f"docker-archive:{path}", tmp_path)
    make_v1(path, LAYERS, None)  # as it is when an image was saved by its id
    assert id_of(f"docker-archive:{path}", tmp_path) == top.id
    assert id_of(f"docker-archive:{path}:@0", tmp_path) == top.id


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parent": hashlib.sha256(b"3").hexdigest()}, "form a circle"),
        ({"parent": "0" * 64}, f"no member '{'0' * 64}/json'"),
        ({"parent": ["x"]}, "parent of"),
        ({"config": {"Env": 3}}, "Env"),
        ({"architecture": "arm64"}, "image is for arm64"),
        ({"os": "windows"}, "image is for windows"),
    ],
)
def test_old_archives_that_contradict_themselves(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    make_v1(tmp_path / "old.tar", LAYERS, {"one": {"1": 3}}, **changes)
    with pytest.raises(ImageInvalid) as caught:
        id_of(f"docker-archive:{tmp_path}/old.tar", tmp_path)
    assert said in caught.value.message
    assert os.listdir(tmp_path) == ["old.tar"]


def test_old_archives_that_lack_something(tmp_path: Path) -> None:
    make_v1(tmp_path / "old.tar", LAYERS[:1], None, parent=hashlib.sha256(b"0").hexdigest())
    with pytest.raises(ImageInvalid, match="form a circle"):
        id_of(f"docker-archive:{tmp_path}/old.tar", tmp_path)
    make_v1(tmp_path / "old.tar", LAYERS, {"one": {"1": 3}})
    run("tar", "--delete", "-f", tmp_path / "old.tar", f"{hashlib.sha256(b'1').hexdigest()}/layer.tar")
    with pytest.raises(ImageInvalid, match=r"layer\.tar', its layer 2"):
        id_of(f"docker-archive:{tmp_path}/old.tar", tmp_path)


@pytest.fixture(scope="module")
def podman() -> Iterator[Sequence[object]]:
    """The words before podman's own, for storage of this test's; it takes no path longer than 50 characters."""
    with directory_for_all("udi-podman-") as top:
        yield (
            "podman",
            "--root",
            top / "root",
            "--runroot",
            top / "run",
            "--tmpdir",
            top / "t",
            "--storage-driver",
            "vfs",
        )


def test_what_podman_and_skopeo_save(podman: Sequence[object], tmp_path: Path) -> None:
    wanted = make_archive(tmp_path / "one.tar", LAYERS, tags=("localhost/one:1",))
    other = make_archive(tmp_path / "two.tar", [BASE], tags=("localhost/two:1",))
    for name in ("one", "two"):
        run(*podman, "load", "-i", tmp_path / f"{name}.tar")
    run(*podman, "save", "-o", tmp_path / "docker.tar", "localhost/one:1")
    run(*podman, "save", "-m", "-o", tmp_path / "both.tar", "localhost/one:1", "localhost/two:1")
    run(*podman, "save", "--format", "oci-archive", "-o", tmp_path / "oci.tar", "localhost/one:1")
    run(*podman, "save", "--format", "oci-dir", "-o", tmp_path / "oci", "localhost/one:1")
    run("skopeo", "copy", f"docker-archive:{tmp_path}/one.tar", f"docker-archive:{tmp_path}/skopeo.tar:one:1")
    run("skopeo", "copy", f"docker-archive:{tmp_path}/one.tar", f"oci-archive:{tmp_path}/skopeo-oci.tar:1")
    for name in ("docker.tar", "skopeo.tar"):
        assert id_of(f"docker-archive:{tmp_path}/{name}", tmp_path) == wanted
        assert id_of(f"docker-archive:{packed(tmp_path / name, 'zstd')}", tmp_path) == wanted
    for name in ("one", "two"):
        found = id_of(f"docker-archive:{tmp_path}/both.tar:localhost/{name}:1", tmp_path)
        assert found == {"one": wanted, "two": other}[name]
    with pytest.raises(UsageError, match="2 images: localhost/one:1, localhost/two:1"):
        id_of(f"docker-archive:{tmp_path}/both.tar", tmp_path)
    output = tmp_path / "docker-tree"
    convert_source(f"docker-archive:{tmp_path}/docker.tar", output)
    for source in ("oci-archive:{}/oci.tar", "oci:{}/oci", "oci-archive:{}/skopeo-oci.tar"):
        kind, _, path = source.format(tmp_path).partition(":")
        convert_source(f"{kind}:{path}", tmp_path / "oci-tree")  # its configuration is another, in OCI's words
        assert tree_of_image(tmp_path / "oci-tree") == tree_of_image(output)
        (tmp_path / "oci-tree").unlink()
    oci = packed(tmp_path / "oci.tar", "bzip2")
    assert id_of(f"oci-archive:{oci}", tmp_path) == id_of(f"oci-archive:{tmp_path}/oci.tar", tmp_path)


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd"])
def test_layout_and_manifest_in_one_archive(tmp_path: Path, how: str) -> None:
    """As Docker 25 and containerd's image store save: an OCI layout with a manifest.json, and layers of any kind."""
    wanted = make_oci_layout(tmp_path / "layout", LAYERS, how=how)
    index = json.loads((tmp_path / "layout/index.json").read_text())
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    manifest = json.loads((tmp_path / "layout/blobs/sha256" / digest).read_text())
    paths = [f"blobs/sha256/{layer['digest'].removeprefix('sha256:')}" for layer in manifest["layers"]]
    listed = [{"Config": f"blobs/sha256/{wanted}", "RepoTags": ["one:1"], "Layers": paths}]
    (tmp_path / "layout/manifest.json").write_text(json.dumps(listed))
    run("tar", "-C", tmp_path / "layout", "-cf", tmp_path / "saved.tar", ".")
    for kind in ("docker-archive", "oci-archive"):
        for path in (tmp_path / "saved.tar", packed(tmp_path / "saved.tar", "gzip")):
            assert id_of(f"{kind}:{path}", tmp_path) == wanted


@pytest.mark.parametrize("form", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_layers_that_are_links_to_others(tmp_path: Path, form: bytes) -> None:
    """In both directions, since archives have them so: to what comes before, and to what comes after."""
    wanted = make_archive(tmp_path / "made.tar", [BASE, BASE, BASE])
    layer, config = layer_tar(BASE), b""
    with tarfile.open(tmp_path / "made.tar") as archive:
        member = archive.extractfile(f"blobs/sha256/{wanted}")
        assert member
        config = member.read()
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        for name in ("a/layer.tar", "c/layer.tar"):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = form, "../b/layer.tar" if form == tarfile.SYMTYPE else "b/layer.tar"
            if name.startswith("c"):
                _add(archive, "b/layer.tar", layer)
            archive.addfile(info)
        _add(archive, "config.json", config)
        names = [f"{name}/layer.tar" for name in "abc"]
        _add(archive, "manifest.json", json.dumps([{"Config": "config.json", "Layers": names}]).encode())
    assert id_of(f"docker-archive:{tmp_path}/links.tar", tmp_path) == wanted


_ZEROS = [*BASE, file("zeros", bytes(4 << 20))]


@pytest.mark.parametrize("how", sorted(PACKED))
@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "rootfs-archive"])
def test_bombs_and_damage_are_one_line_and_leave_nothing(tmp_path: Path, kind: str, how: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    plain = tmp_path / "plain"
    if kind == "rootfs-archive":
        plain.write_bytes(layer_tar(_ZEROS))
    else:
        make_archive(plain, [_ZEROS])
    bomb = packed(plain, how)
    limits: list[tuple[dict[str, object], str]] = [
        ({"max_image_bytes": 1 << 20}, "more than 1048576 bytes"),
        ({"ratio_from_bytes": 1 << 20, "max_ratio": 10}, "more than 1048576 bytes and 10 times"),
    ]
    for settings, said in limits:
        with pytest.raises(ImageInvalid, match=said) as caught:
            id_of(f"{kind}:{bomb}", work, **settings)
        assert "gateway.max" in caught.value.hint or "gateway.ratio" in caught.value.hint
        assert os.listdir(work) == []
    data = bomb.read_bytes()
    cut = tmp_path / "cut"
    for length in (10, 50, len(data) // 2, len(data) - 9):
        cut.write_bytes(data[:length])
        with pytest.raises(UdiError) as ended:
            id_of(f"{kind}:{cut}", work)
        assert ended.value.exit_code == 5
        assert "\n" not in ended.value.message
        assert os.listdir(work) == []


def test_what_is_taken_for_another_kind_is_told(tmp_path: Path) -> None:
    make_archive(tmp_path / "image.tar", LAYERS)
    make_oci_layout(tmp_path / "layout", LAYERS)
    run("tar", "-C", tmp_path / "layout", "-cf", tmp_path / "oci.tar", ".")
    (tmp_path / "tree.tar").write_bytes(layer_tar(LAYERS[0]))
    twice = packed(packed(tmp_path / "image.tar", "gzip"), "zstd")
    for source, hint in (
        (f"rootfs-archive:{tmp_path}/image.tar", "docker-archive:FILE"),
        (f"rootfs-archive:{tmp_path}/oci.tar", "oci-archive:FILE"),
        (f"docker-archive:{tmp_path}/tree.tar", "rootfs-archive:FILE"),
        (f"docker-archive:{tmp_path}/oci.tar", "oci-archive:FILE"),
        (f"oci-archive:{tmp_path}/image.tar", "docker-archive:FILE"),
        (f"docker-archive:{twice}", "gunzip"),
    ):
        with pytest.raises(ImageInvalid) as caught:
            id_of(source, tmp_path)
        assert hint in caught.value.hint, source


def test_a_claim_of_memory_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]
    (tmp_path / "archive").write_bytes(lzma.compress(b"x", filters=filters))
    with pytest.raises(ImageInvalid, match=r"[Mm]emory"):
        id_of(f"docker-archive:{tmp_path}/archive", tmp_path)


def test_archives_of_every_tar(tmp_path: Path) -> None:
    """Of one tree: GNU's two formats with holes, pax, ustar."""
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "bin").mkdir()
    (tree / ("deep" * 20)).mkdir()
    (tree / ("deep" * 20) / ("name" * 20)).write_text("x")
    with open(tree / "etc/holes", "wb") as stream:
        stream.seek(1 << 20)
        stream.write(b"end")
        stream.truncate(3 << 20)
    found = []
    for form in ("gnu", "pax", "ustar"):
        for more in ([], ["--sparse"]) if form != "ustar" else ([],):
            run("tar", f"--format={form}", *more, "-C", tree, "-cJf", tmp_path / "tree.tar.xz", ".")
            convert_source(f"rootfs-archive:{tmp_path}/tree.tar.xz", tmp_path / "out")
            found.append(tree_of_image(tmp_path / "out"))
            (tmp_path / "out").unlink()
    assert all(each == found[0] for each in found)
    assert found[0][b"etc/holes"].content == bytes(1 << 20) + b"end" + bytes((2 << 20) - 3)


@pytest.fixture
def service() -> Iterator[Service]:
    with directory_for_all("udi-archives-") as directory, Service(directory) as service:
        yield service


def test_a_user_pulls_a_compressed_archive_by_its_own_name(service: Service, tmp_path: Path) -> None:
    with directory_for_all("udi-archives-files-") as top:
        wanted = make_archive(top / "one.tar", LAYERS, tags=("one:1",))
        make_v1(top / "old.tar", LAYERS, {"old": {"1": 3}})
        for how in ("gzip", "xz"):
            pulled = service.udi(ANNA, "pull", f"docker-archive:{packed(top / 'one.tar', how)}")
            assert (pulled.returncode, pulled.stdout.split()) == (0, ["one:1", wanted]), pulled.stderr
        by_name = service.udi(BERT, "pull", f"docker-archive:{packed(top / 'one.tar', 'bzip2')}", "mine:1")
        assert by_name.stdout.split() == ["mine:1", wanted], by_name.stderr
        old = service.udi(ANNA, "pull", f"docker-archive:{packed(top / 'old.tar', 'zstd')}")
        plain = service.udi(BERT, "pull", f"docker-archive:{top}/old.tar")
        assert old.stdout.split() == plain.stdout.split() != [], old.stderr + plain.stderr
        assert service.udi(BERT, "lookup", "one:1").returncode == 3
        cut = top / "cut"
        cut.write_bytes(gzip.compress((top / "one.tar").read_bytes())[:-20])
        before = sorted(service.store.glob("*/*"))
        for words in ([], ["cut:1"]):
            refused = service.udi(ANNA, "pull", f"docker-archive:{cut}", *words)
            assert refused.returncode == 5
            assert "archive is damaged" in refused.stderr
            assert "Traceback" not in refused.stderr
        assert sorted(service.store.glob("*/*")) == before


@pytest.mark.parametrize("kind", ["docker-archive", "rootfs-archive"])
def test_no_room_to_expand_is_the_site_s_fault(tmp_path: Path, small_disk: Path, kind: str) -> None:
    """An image's files that could not be written, and were taken for written: NVIDIA/enroot 83."""
    noise = [*BASE, file("noise", os.urandom(8 << 20))]
    compressed = tmp_path / "compressed"
    if kind == "docker-archive":
        make_archive(tmp_path / "plain", [noise])
    else:
        (tmp_path / "plain").write_bytes(layer_tar(noise))
    compressed.write_bytes(lzma.compress((tmp_path / "plain").read_bytes(), preset=0))  # noise stays as long as it is
    with pytest.raises(UpstreamFailed, match=r"cannot be expanded in .*[Nn]o space left"):
        id_of(f"{kind}:{compressed}", small_disk)
    assert os.listdir(small_disk) == []
