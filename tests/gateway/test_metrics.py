"""The gateway's figures, after pulls by a real service from a real registry: `udi-gateway metrics`."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.gateway.archives import BASE, file, make_archive
from tests.gateway.service import ACCOUNT, ANNA, BERT
from tests.gateway.support import needs_root
from tests.metrics.samples import samples
from tests.metrics.watched import Watched, watched
from udi import durable

__all__ = ["watched"]
pytestmark = needs_root


def test_pulls_by_result_layers_by_source_and_errors_by_registry(watched: Watched, tmp_path: Path) -> None:
    service, registry = watched.service, watched.registry
    own = [file("data", os.urandom(200_000))]
    first = registry.push("one", [BASE, own])
    registry.push("two", [BASE, own, [file("more", os.urandom(1000))]])
    service.ask(ANNA, "pull", "one:1")
    service.ask(ANNA, "pull", "two:1")
    service.ask(BERT, "pull", "one:1")
    assert service.udi(ANNA, "pull", "three:1").returncode == 3
    assert service.udi(ANNA, "pull", "registry.example/x:1").returncode == 4
    archive = tmp_path / "image.tar"
    make_archive(archive, [BASE], config={"rootfs": {"type": "layers", "diff_ids": [f"sha256:{64 * '0'}"]}})
    assert service.udi(0, "pull", f"docker-archive:{archive}", "broken:1").returncode == 5
    done = watched.gateway(ANNA, "metrics")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("udi-gateway: the gateway must run as the store's account")
    figures = watched.figures()
    risen = {key: value for key, value in figures.items() if value}
    name = registry.name
    expected = {
        ("udi_gateway_pulls_total", name, "done"): 3,
        ("udi_gateway_pulls_total", name, "refused"): 1,
        ("udi_gateway_pulls_total", "other", "refused"): 1,
        ("udi_gateway_pulls_total", "files", "refused"): 1,
        ("udi_gateway_errors_total", "not_found", "user", name): 1,
        ("udi_gateway_errors_total", "not_permitted", "user", "other"): 1,
        ("udi_gateway_errors_total", "image_invalid", "user", "files"): 1,
        ("udi_gateway_layers_total", name, "registry"): 3,
        ("udi_gateway_layers_total", name, "cache"): 2,
        ("udi_gateway_conversion_seconds_count",): 2,
        ("udi_gateway_conversion_seconds_bucket", "+Inf"): 2,
        ("udi_store_images",): 2,
    }
    assert {key: risen.get(key) for key in expected} == expected
    counted = {key for key in risen if key[0].startswith(("udi_gateway_pulls_t", "udi_gateway_errors"))}
    assert counted <= set(expected), "nothing else was counted"
    assert risen["udi_gateway_fetched_bytes_total", name] > 200_000
    assert risen["udi_gateway_cache_bytes",] >= first.size > 0
    assert risen["udi_gateway_image_bytes_total",] > 400_000
    assert figures["udi_gateway_up",] == 1
    assert figures["udi_store_free_bytes",] <= figures["udi_store_size_bytes",]
    assert abs(figures["udi_gateway_collected_timestamp_seconds",] - time.time()) < 30


def test_write_replaces_the_file_that_the_exporter_reads_or_says_why_not(watched: Watched) -> None:
    done = watched.gateway(ACCOUNT, "metrics", "--write")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.listdir(watched.directory) == ["udi-gateway.prom"]
    path = watched.directory / "udi-gateway.prom"
    left = Path(durable.unfinished(str(path)))
    left.write_text("# HE")  # by a process that was killed in the middle of it
    os.chown(left, ACCOUNT, ACCOUNT)
    assert watched.gateway(ACCOUNT, "metrics", "--write").returncode == 0
    assert os.listdir(watched.directory) == ["udi-gateway.prom"]
    assert path.stat().st_mode & 0o777 == 0o644
    assert ("udi_store_free_bytes",) in samples(path.read_text())
    os.chown(watched.directory, 0, 0)
    done = watched.gateway(ACCOUNT, "metrics", "--write")
    assert done.returncode == 6
    assert done.stderr.splitlines() == [
        f"udi-gateway: {watched.directory}/udi-gateway.prom cannot be written: permission denied",
        f"hint: {ACCOUNT} must be able to write the directory",
    ]
