"""The service between accounts: one conversion for all who ask, of the very content that an id names."""

from __future__ import annotations

import signal
import subprocess
import threading
from pathlib import Path

from gateway.client import client
from gateway.sources.files import DockerArchive
from tests.gateway.archives import (
    BASE,
    file,
    image_config,
    layer_tar,
    make_archive,
)
from tests.gateway.service import (
    ANNA,
    BERT,
    Service,
    descriptors,
    fresh,
    packer_runs,
    pull_of,
    until,
)
from udiroot.errors import UdiError


def test_twenty_pulls_at_once_make_one_conversion(service: Service) -> None:
    path, image_id = fresh(service, size=3_000_000)
    copy = Path(path).with_suffix(".copy.tar")
    copy.write_bytes(Path(path).read_bytes())
    found: list[object] = []

    def pull(number: int) -> None:
        source = DockerArchive(str(path if number % 4 else copy)).open("amd64", 1 << 20)
        try:
            found.append(client.ask(service.site, pull_of(source, f"twenty:{number}"), files=descriptors(source)).id)
        except UdiError as error:
            found.append(error.message)
        finally:
            source.close()

    threads = [threading.Thread(target=pull, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [image_id] * 20
    assert service.conversions(image_id) == 1
    assert {f"twenty:{number}" for number in range(20)} <= service.names(0)


def test_a_client_that_dies_does_not_end_the_pull(service: Service) -> None:
    path, image_id = fresh(service)
    service.fault("wait")
    process = subprocess.Popen(service.command("pull", f"docker-archive:{path}", "left:1"), stderr=subprocess.DEVNULL)
    until(lambda: packer_runs(service))
    process.kill()
    process.wait()
    service.fault("")
    until(lambda: "left:1" in service.names(0))
    assert f"{image_id}.squashfs" in service.files()


def test_ctrl_c_says_that_the_pull_goes_on(service: Service) -> None:
    path, _ = fresh(service)
    service.fault("wait")
    command = service.command("pull", f"docker-archive:{path}", "ctrl-c:1")
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    until(lambda: packer_runs(service))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"the pull continues in the background" in said
    service.fault("")
    until(lambda: "ctrl-c:1" in service.names(0))


def test_an_archive_that_claims_another_images_id(service: Service) -> None:
    """The configuration is public knowledge; the layers are what must be shown."""
    secret, other = layer_tar([*BASE, file("secret", b"s")]), layer_tar([*BASE, file("other", b"o")])
    image_id = make_archive(service.directory / "secret.tar", [secret])
    make_archive(service.directory / "liar.tar", [other], config=image_config([secret]))
    for name in ("secret.tar", "liar.tar"):
        (service.directory / name).chmod(0o644)
    first = service.udi(BERT, "pull", f"docker-archive:{service.directory}/liar.tar", "liar:1")
    assert first.returncode == 5
    assert "layer 1 does not match the image configuration" in first.stderr
    service.ask(ANNA, "pull", f"docker-archive:{service.directory}/secret.tar", "secret:1")
    second = service.udi(BERT, "pull", f"docker-archive:{service.directory}/liar.tar", "liar:1")
    assert second.returncode == 5
    assert service.names(BERT).isdisjoint({"liar:1", "secret:1"})
    assert service.udi(BERT, "lookup", f"id:{image_id}").returncode == 3


def test_who_has_the_layers_gets_the_image_without_another_conversion(service: Service) -> None:
    path, image_id = fresh(service)
    service.ask(ANNA, "pull", f"docker-archive:{path}", "shared:1")
    copy = service.directory / "copy.tar"
    copy.write_bytes(Path(path).read_bytes())
    copy.chmod(0o644)
    assert service.ask(BERT, "pull", f"docker-archive:{copy}", "shared:1")["id"] == image_id
    assert service.conversions(image_id) == 1


def test_a_file_that_changes_while_it_is_converted_changes_nothing(service: Service) -> None:
    path, image_id = fresh(service, size=200_000)
    good = service.directory / "good.tar"
    good.write_bytes(Path(path).read_bytes())
    good.chmod(0o644)
    service.fault("wait")
    thread = threading.Thread(target=service.ask, args=(ANNA, "pull", f"docker-archive:{path}", "changed:1"))
    thread.start()
    until(lambda: packer_runs(service))
    data = bytearray(Path(path).read_bytes())
    with open(path, "r+b") as stream:
        stream.write(bytes(len(data)))
    service.fault("")
    thread.join(30)
    made = (service.store / "images" / f"{image_id}.squashfs").read_bytes()
    service.ask(ANNA, "rm", "changed:1")
    service.ask(ANNA, "pull", f"docker-archive:{good}", "unchanged:1")
    assert (service.store / "images" / f"{image_id}.squashfs").read_bytes() == made
