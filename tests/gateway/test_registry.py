"""Images straight from real registries: manifests, digests, logins, TLS, mirrors, and the cache of layers."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.sources.registry import Registry
from gateway.sources.registry_image import host_of
from gateway.store.credentials import Credentials
from tests.gateway.archives import BASE, file
from tests.gateway.odd_registry import OddRegistry
from tests.gateway.registries import (
    DOCKER,
    OCI,
    USERS,
    DebianRegistry,
    registry_config,
)
from tests.gateway.registry_pulls import ANNA, LAYERS, found, pull, refused
from udi.command import Deadline
from udi.reference import ImageReference
from udiroot.errors import ImageInvalid, NotFound, NotPermitted, UdiError, UpstreamFailed


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianRegistry]:
    with DebianRegistry(tmp_path_factory.mktemp("r") / "open") as registry:
        yield registry


@pytest.fixture(scope="module")
def closed_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianRegistry]:
    with DebianRegistry(tmp_path_factory.mktemp("r") / "closed", login=True) as registry:
        yield registry


# Real registries


@pytest.mark.parametrize("how", ["gzip", "zstd", "plain", "gzip-members"])
@pytest.mark.parametrize("family", [OCI, DOCKER])
def test_both_families_of_manifests_and_all_compressions(
    open_registry: DebianRegistry, tmp_path: Path, how: str, family: str
) -> None:
    name = f"kinds/{how}-{family.rpartition('.')[2]}"
    pushed = open_registry.push(name, LAYERS, how=how, family=family)
    facts = pull(tmp_path, registry_config(open_registry.name), f"{open_registry.name}/{name}:1")
    assert (facts.id, facts.digest) == (pushed.id, pushed.digest)
    by_digest = pull(tmp_path, registry_config(open_registry.name), f"{open_registry.name}/{name}@{pushed.digest}")
    assert by_digest == dataclasses.replace(facts)


def test_a_manifest_list_gives_the_architecture_that_is_asked_for(
    open_registry: DebianRegistry, tmp_path: Path
) -> None:
    settings = registry_config(open_registry.name)
    images = {}
    for arch in ("amd64", "arm64"):
        layers = [BASE, [file("arch", arch.encode())]]
        images[arch] = open_registry.push("many", layers, tag=arch, config={"architecture": arch})
    for kind, name in ((f"{OCI}.index.v1+json", "oci"), (f"{DOCKER}.distribution.manifest.list.v2+json", "docker")):
        entries = [pushed.entry(arch) for arch, pushed in images.items()]
        index = {"schemaVersion": 2, "mediaType": kind, "manifests": entries}
        digest = open_registry.put_manifest("many", name, index, kind)
        for arch, pushed in images.items():
            assert pull(tmp_path, settings, f"many:{name}", arch=arch).id == pushed.id
        assert pull(tmp_path, settings, f"many@{digest}").id == images["amd64"].id, "the digest of a list will do"
        with pytest.raises(ImageInvalid, match="no version for s390x") as caught:
            found(settings, f"many:{name}", arch="s390x")
        assert caught.value.hint == "it has: amd64, arm64"


def test_digest_pinning_names_what_is_missing(open_registry: DebianRegistry, tmp_path: Path) -> None:
    """sarus#1: without it, the error was "Failed authentication"."""
    absent = f"{open_registry.name}/kinds/none@sha256:{'0' * 64}"
    error = refused(NotFound, "has no such image", tmp_path, registry_config(open_registry.name), absent)
    assert "kinds/none" in error.message


def test_duplicate_layers(open_registry: DebianRegistry, tmp_path: Path) -> None:
    """charliecloud#1568: the same digest twice in a manifest; it is fetched once."""
    base = [*BASE, file("own", os.urandom(100))]
    layers = [base, [file("again", b"x" * 3000)], base, [file("again", b"x" * 3000)]]
    pushed = open_registry.push("twice", layers)
    assert pull(tmp_path, registry_config(open_registry.name), "twice:1").id == pushed.id
    assert [open_registry.fetches(digest) for digest in sorted(set(pushed.layers))] == [1, 1]


def test_an_image_without_a_login_is_public_and_with_one_private(
    closed_registry: DebianRegistry, open_registry: DebianRegistry, tmp_path: Path
) -> None:
    pushed = closed_registry.push("anna/secret", LAYERS)
    settings = registry_config(closed_registry.name, open_registry.name)
    image = found(settings, "anna/secret:1", ANNA)
    assert image.private
    assert image.id == pushed.id
    assert pull(tmp_path, settings, "anna/secret:1", ANNA).id == pushed.id
    open_registry.push("everybodys", LAYERS)
    assert not found(settings, f"{open_registry.name}/everybodys:1", ANNA).private
    error = refused(NotPermitted, "requires credentials", tmp_path, settings, "anna/secret:1")
    assert error.hint == f"udi login {closed_registry.name}"
    refused(NotPermitted, "", tmp_path, settings, "anna/secret:1", Credentials("anna", "wrong"))


def test_a_cached_layer_is_for_those_alone_who_show_the_registry_a_login(
    closed_registry: DebianRegistry, tmp_path: Path
) -> None:
    """Layers already fetched are not fetched again, and open nothing to anybody else."""
    layers = [[*BASE, file("1", os.urandom(9))], [file("2", os.urandom(9))], [file("3", os.urandom(9))]]
    pushed = closed_registry.push("anna/cached", layers)
    settings = registry_config(closed_registry.name)
    first = pull(tmp_path, settings, "anna/cached:1", ANNA)
    assert [closed_registry.fetches(digest) for digest in pushed.layers] == [1] * 3
    for credentials in (None, Credentials("anna", "wrong"), Credentials("eve", "x")):
        with pytest.raises(NotPermitted):
            pull(tmp_path, settings, "anna/cached:1", credentials)
    assert pull(tmp_path, settings, "anna/cached:1", ANNA) == first
    assert pull(tmp_path, settings, "anna/cached:1", Credentials("bert", USERS["bert"])) == first
    assert [closed_registry.fetches(digest) for digest in pushed.layers] == [1] * 3, "out of the cache"


def test_a_registry_with_a_private_authority(tmp_path: Path) -> None:
    with DebianRegistry(tmp_path / "registry", tls=True) as registry:
        pushed = registry.push("app", LAYERS)
        hosts = tuple(dataclasses.replace(host, plain_http=False) for host in registry_config(registry.name).hosts)
        settings = registry_config(registry.name, hosts=hosts, certificates=str(tmp_path / "certs"))
        error = refused(UpstreamFailed, "certificate that is not trusted", tmp_path, settings, "app:1")
        assert "registry.certificates" in error.hint
        own = tmp_path / "certs" / registry.name
        own.mkdir(parents=True)
        (own / "ca.crt").write_bytes(registry.authority.read_bytes())
        assert pull(tmp_path, settings, "app:1").id == pushed.id
        (own / "ca.crt").write_text("no certificate")
        refused(UdiError, "registry.certificates", tmp_path, settings, "app:1")
        other = registry_config(registry.name)  # plain HTTP to a registry with TLS
        refused(UdiError, "", tmp_path, other, "app:1")


def test_only_registries_that_the_site_lists(open_registry: DebianRegistry, tmp_path: Path) -> None:
    settings = registry_config(open_registry.name)
    error = refused(NotPermitted, "registry other.test is not allowed", tmp_path, settings, "other.test/x:1")
    assert open_registry.name in error.hint
    assert settings.canonical(ImageReference.parse(f"{open_registry.name}/x:1")) == ImageReference.parse("x:1")
    assert host_of(settings, "").name == open_registry.name


def test_a_mirror_is_asked_first_and_never_with_a_login(open_registry: DebianRegistry, tmp_path: Path) -> None:
    pushed = open_registry.push("mirrored", LAYERS)
    with OddRegistry() as mirror:
        names = [open_registry.name, mirror.name]
        hosts = registry_config(*names).hosts
        settings = registry_config(*names, hosts=(dataclasses.replace(hosts[0], mirror=mirror.name), hosts[1]))
        assert pull(tmp_path, settings, "mirrored:1", ANNA).id == pushed.id, "the mirror has it not: the registry then"
        digests = mirror.add("mirrored:1", [*LAYERS, [file("of-the-mirror", b"")]])
        image = found(settings, "mirrored:1", ANNA)
        assert (image.registry, image.host) == (open_registry.name, mirror.name)
        assert [layer.digest for layer in image.layers] == digests
        assert pull(tmp_path, settings, "mirrored:1", ANNA).id == image.id
        assert not any(asked.authorization for asked in mirror.asked)
    assert pull(tmp_path, settings, "mirrored:1").id == pushed.id, "a dead mirror stops nobody"


def test_login_is_verified(closed_registry: DebianRegistry, open_registry: DebianRegistry) -> None:
    """shifter#321: bad credentials were accepted silently."""
    settings = registry_config(closed_registry.name, open_registry.name)

    def check(name: str, credentials: Credentials) -> bool:
        return Registry(settings, host_of(settings, name), "", credentials, Deadline(10)).check_credentials()

    assert check(closed_registry.name, ANNA), "a password with a colon, a blank and an apostrophe"
    with pytest.raises(NotPermitted, match="rejected these credentials"):
        check(closed_registry.name, Credentials("anna", "wrong"))
    assert not check(open_registry.name, ANNA), "it asks for none"
