"""What a worker is told: every origin survives the way through JSON unchanged, and nothing unknown is accepted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gateway.service.order import Order
from gateway.service.origins import FromDaemon, FromFiles, FromRegistry, Origin
from gateway.sources.docker_daemon import DaemonImage
from gateway.sources.files import DockerArchive
from gateway.sources.registry_image import RegistryImage, RemoteLayer
from gateway.store.credentials import Credentials
from udi.gatewayconfig import GatewayConfig
from udi.registries import DOCKER_HUB, RegistryConfig, RegistryHostConfig
from udiroot.errors import UsageError

DIGEST = "sha256:" + "0" * 64
REMOTE = RegistryImage(
    registry="r.test",
    host="mirror.test",
    repository="team/app",
    reference="r.test/team/app:1",
    digest=DIGEST,
    config=b'{"not": "utf-8: \xff"}',
    layers=(RemoteLayer(DIGEST, 1), RemoteLayer(DIGEST, 2, ("https://a.test/x", "https://b.test/x"))),
    arch="arm64",
    private=True,
)
REGISTRIES = RegistryConfig(
    hosts=(DOCKER_HUB, RegistryHostConfig(name="r.test", content_hosts=("a.test", "*.b.test"), plain_http=True))
)
SETTINGS = GatewayConfig(publishers=("anna", "bert"), keep_days=3)
ORIGINS = [
    FromFiles("oci", "1", (("index.json", 3), ("oci-layout", 4))),
    FromRegistry(REMOTE, REGISTRIES),
    FromRegistry(REMOTE, REGISTRIES, Credentials("anna", "secret")),
    FromDaemon(DaemonImage("unix:///x", f"r.test/app@{DIGEST}", True), DIGEST, "amd64", 7.5, "1" * 64),
    FromDaemon(DaemonImage("unix:///x", DIGEST, False), DIGEST, "amd64", 7, "", Credentials("anna", "secret")),
]


@pytest.mark.parametrize("origin", ORIGINS, ids=repr)
def test_an_order_survives_json(origin: Origin) -> None:
    order = Order(os.getpid(), "/store/images/.new-0", SETTINGS, origin)
    text = order.to_json()
    assert "\n" not in text
    assert Order.from_json(text) == order


@pytest.mark.parametrize("change", [{"extra": 1}, {"image": {}}, {"credentials": ["anna", "secret"]}])
def test_an_order_is_read_strictly(change: dict[str, object]) -> None:
    document = json.loads(Order(1, "/x", SETTINGS, ORIGINS[1]).to_json())
    document["origin"] |= change
    with pytest.raises(UsageError):
        Order.from_json(json.dumps(document))


def test_the_same_files_are_one_source(tmp_path: Path) -> None:
    path = tmp_path / "i.tar"
    path.write_bytes(b"x" * 10)
    first, second = (DockerArchive(str(path)).open("amd64", 1 << 20) for _ in range(2))
    one, two = FromFiles.of(first), FromFiles.of(second)
    assert one != two and one.identity() == two.identity()
    path.write_bytes(b"x" * 11)
    assert one.identity() == two.identity() != (one.kind,)
    assert FromFiles.of(DockerArchive(str(path), "other").open("amd64", 1 << 20)).identity() != one.identity()
    first.close()
    second.close()


def test_what_a_caller_may_share_is_the_manifest_and_not_the_credentials() -> None:
    assert ORIGINS[1].identity() == ORIGINS[2].identity()
    assert not any("secret" in repr(origin) for origin in ORIGINS)
