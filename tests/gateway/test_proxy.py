"""Registries that are asked through a proxy, by a real one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tests.gateway.registries import DebianRegistry, registry_config
from tests.gateway.registry_pulls import ANNA, LAYERS, pull, refused
from tests.gateway.support import needs_root
from tests.gateway.tinyproxy import Tinyproxy
from udi.registries import RegistryConfig
from udiroot.errors import UpstreamFailed
from xcsim.ports import free_port

pytestmark = needs_root


def _through(proxy: str, settings: RegistryConfig) -> RegistryConfig:
    return dataclasses.replace(settings, hosts=tuple(dataclasses.replace(h, proxy=proxy) for h in settings.hosts))


def test_a_plain_registry_through_a_proxy(tmp_path: Path) -> None:
    with DebianRegistry(tmp_path / "registry", login=True) as registry, Tinyproxy(tmp_path / "proxy") as proxy:
        pushed = registry.push("app", LAYERS)
        assert pull(tmp_path, _through(proxy.address, registry_config(registry.name)), "app:1", ANNA).id == pushed.id
        for digest in pushed.layers:
            assert f"GET http://{registry.name}/v2/app/blobs/{digest} HTTP/1.1" in proxy.log()


def test_a_registry_with_tls_through_a_proxy_that_sees_nothing(tmp_path: Path) -> None:
    with DebianRegistry(tmp_path / "registry", tls=True) as registry, Tinyproxy(tmp_path / "proxy") as proxy:
        pushed = registry.push("app", LAYERS)
        hosts = tuple(dataclasses.replace(host, plain_http=False) for host in registry_config(registry.name).hosts)
        settings = registry_config(registry.name, hosts=hosts, certificates=str(tmp_path / "certs"))
        refused(UpstreamFailed, "not trusted", tmp_path, _through(proxy.address, settings), "app:1")
        own = tmp_path / "certs" / registry.name
        own.mkdir(parents=True)
        (own / "ca.crt").write_bytes(registry.authority.read_bytes())
        assert pull(tmp_path, _through(proxy.address, settings), "app:1").id == pushed.id
        assert f"CONNECT {registry.name} HTTP/1." in proxy.log()
        assert "/v2/" not in proxy.log()


def test_a_proxy_that_refuses_or_is_not_there_is_named(tmp_path: Path) -> None:
    with DebianRegistry(tmp_path / "registry", tls=True) as registry, Tinyproxy(tmp_path / "p", tunnels=1) as proxy:
        hosts = tuple(dataclasses.replace(host, plain_http=False) for host in registry_config(registry.name).hosts)
        settings = registry_config(registry.name, hosts=hosts)
        error = refused(UpstreamFailed, "403", tmp_path, _through(proxy.address, settings), "app:1")
        assert f"{registry.name} (through proxy {proxy.address})" in error.message
        nobody = f"localhost:{free_port()}"
        refused(UpstreamFailed, f"through proxy {nobody}", tmp_path, _through(nobody, settings), "app:1")
