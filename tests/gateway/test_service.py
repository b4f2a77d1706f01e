"""The service and the user's program, between accounts: who sees what, one conversion for all, faults, bounds."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.client import client
from gateway.sources.files import DockerArchive
from gateway.store.locks import Locks
from gateway.wire import protocol
from gateway.wire.events import Event, Failed
from tests.gateway.archives import (
    BASE,
    Entry,
    file,
    image_config,
    layer_tar,
    make_archive,
    make_oci_layout,
    opaque,
    whiteout,
)
from tests.gateway.service import ACCOUNT, ANNA, BERT, NOBODY, Service, descriptors, next_event, pull_of, run_as
from udi import config
from udiroot.errors import NotFound, TimedOut, UdiError, UpstreamFailed

_count = 0


def fresh(service: Service, name: str = "", size: int = 1000, **more: object) -> tuple[str, str]:
    """A new image as an archive that all can read: its path and its id."""
    global _count
    _count += 1
    path = service.directory / f"image{_count}.tar"
    tag = name or f"image{_count}:1"
    image_id = make_archive(path, [[*BASE, file("data", os.urandom(size))]], tags=[tag], **more)  # type: ignore[arg-type]
    path.chmod(0o644)
    return str(path), image_id


def until(happened: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Who sees what


def test_an_image_of_an_archive_is_its_pullers_alone(service: Service) -> None:
    path, image_id = fresh(service, "private/app:2")
    answer = service.ask(ANNA, "pull", f"docker-archive:{path}")
    assert answer == {
        "reference": "private/app:2",
        "id": image_id,
        "troubles": [],
        "format": "squashfs",
        "warnings": [],
    }
    assert "private/app:2" in service.names(ANNA)
    assert "private/app:2" not in service.names(BERT) | service.names(0)
    for words in (["lookup", "private/app:2"], ["inspect", f"id:{image_id}"], ["rm", "private/app:2"]):
        refused = service.udi(BERT, *words)
        assert refused.returncode == NotFound.exit_code
        assert "not found, or you do not have access to it" in refused.stderr
    image = service.store / "images" / f"{image_id}.squashfs"
    assert mode_of(image) == mode_of(image.with_suffix(".json")) == 0o400
    assert image.stat().st_uid == ACCOUNT
    assert service.ask(ANNA, "inspect", "private/app:2")["facts"]["size"] == image.stat().st_size


def test_lookup_prints_the_id_and_so_does_the_function(service: Service) -> None:
    path, image_id = fresh(service)
    service.ask(0, "pull", f"docker-archive:{path}", "looked/up:1")
    assert service.udi(0, "lookup", "looked/up:1").stdout == f"{image_id}\n"
    assert client.lookup(service.site, "looked/up:1") == image_id
    with pytest.raises(NotFound):
        client.lookup(service.site, "looked/up:2")


def test_only_publishers_make_images_public(service: Service) -> None:
    path, image_id = fresh(service)
    image = service.store / "images" / f"{image_id}.squashfs"
    assert service.udi(ANNA, "pull", "--public", f"docker-archive:{path}", "pub:1").returncode == 4
    assert not image.exists()
    service.ask(ANNA, "pull", f"docker-archive:{path}", "mine:1")
    assert mode_of(image) == 0o400
    service.ask(NOBODY, "pull", "--public", f"docker-archive:{path}", "pub:1")
    assert mode_of(image) == mode_of(image.with_suffix(".json")) == 0o444
    assert service.ask(BERT, "lookup", "pub:1")["id"] == image_id
    assert service.udi(BERT, "rm", "pub:1").returncode == 4
    service.ask(NOBODY, "rm", "pub:1")
    assert mode_of(image) == 0o400, "anna's name still holds it, and it is hers alone"
    service.ask(ANNA, "rm", "mine:1")
    assert not image.exists()
    assert not image.with_suffix(".json").exists()


def test_two_tags_of_one_image_and_removal_that_counts_references(service: Service) -> None:
    path, image_id = fresh(service)
    for name in ("two:1", "two:2"):
        service.ask(ANNA, "pull", f"docker-archive:{path}", name)
    assert service.conversions(image_id) == 1
    service.ask(ANNA, "rm", "two:1")
    assert service.ask(ANNA, "lookup", "two:2")["id"] == image_id
    service.ask(ANNA, "rm", "two:2")
    assert f"{image_id}.squashfs" not in service.files()


def test_an_image_that_a_job_uses_stays(service: Service) -> None:
    path, image_id = fresh(service)
    service.ask(ANNA, "pull", f"docker-archive:{path}", "used:1")
    plan = service.store / "plans" / "12.x"
    plan.write_text(f"image squashfs /store/images/{image_id}.squashfs {image_id}\n")
    os.chown(plan, ACCOUNT, ACCOUNT)
    service.ask(ANNA, "rm", "used:1")
    assert f"{image_id}.squashfs" in service.files()
    plan.unlink()
    other, _ = fresh(service)
    service.ask(ANNA, "pull", f"docker-archive:{other}")
    assert f"{image_id}.squashfs" not in service.files()


def test_pulling_a_name_again_replaces_what_it_stands_for(service: Service) -> None:
    (first, first_id), (second, second_id) = fresh(service), fresh(service)
    service.ask(ANNA, "pull", f"docker-archive:{first}", "again:1")
    service.ask(BERT, "pull", f"docker-archive:{first}", "bert:1")
    service.ask(ANNA, "pull", f"docker-archive:{second}", "again:1")
    assert service.ask(ANNA, "lookup", "again:1")["id"] == second_id
    assert service.ask(BERT, "lookup", "bert:1")["id"] == first_id


def test_the_client_opens_files_with_the_users_rights(service: Service) -> None:
    path, image_id = fresh(service)
    os.chown(path, ANNA, ANNA)
    Path(path).chmod(0o400)
    refused = service.udi(BERT, "pull", f"docker-archive:{path}", "stolen:1")
    assert refused.returncode == 4
    assert refused.stderr.startswith(f"udi: {path}: permission denied")
    assert service.ask(ANNA, "pull", f"docker-archive:{path}", "own:1")["id"] == image_id, "the service may not read it"


def test_a_user_namespace_makes_nobody_root(service: Service) -> None:
    """Workflow engines and users' own containers start programs in one: a pull there is the user's, as anywhere."""
    path, _ = fresh(service, "namespace/app:1")
    within = ["unshare", "--user", "--map-root-user"]
    pulled = run_as(ANNA, [*within, *service.command("pull", f"docker-archive:{path}", "--json")])
    assert pulled.returncode == 0, pulled.stderr
    assert (service.store / f"refs/namespace%2Fapp:1~{ANNA}.json").exists()
    public = run_as(ANNA, [*within, *service.command("pull", "--public", f"docker-archive:{path}", "x:1")])
    assert public.returncode == 4, "she looks like root there, and is no publisher"
    service.ask(ANNA, "rm", "namespace/app:1")


def test_whiteouts_and_devices_need_no_right(service: Service) -> None:
    """The service's account can make no device node, as which overlays have both."""
    path = service.directory / "whiteouts.tar"
    upper = [whiteout("gone"), opaque("d"), file("d/new"), Entry(b"null", tarfile.CHRTYPE)]
    image_id = make_archive(path, [[*BASE, file("gone"), file("d/old")], upper], tags=["whiteouts:1"])
    path.chmod(0o644)
    assert service.ask(ANNA, "pull", f"docker-archive:{path}")["id"] == image_id
    image = service.store / "images" / f"{image_id}.squashfs"
    listed = subprocess.run(["rdsquashfs", "--describe", image], capture_output=True, text=True, check=True).stdout
    assert [line.split()[1] for line in listed.splitlines() if line.startswith("file ")] == ["bin/sh", "d/new"]
    assert "nod" not in [line.split()[0] for line in listed.splitlines()]


def test_an_oci_layout_in_a_folder_that_only_its_owner_can_enter(service: Service) -> None:
    directory = service.directory / "anna"
    image_id = make_oci_layout(directory / "oci", [BASE, [file("data", b"oci")]], how="gzip")
    subprocess.run(["chown", "-R", str(ANNA), directory], check=True)
    directory.chmod(0o700)
    assert service.udi(ANNA, "pull", f"oci:{directory}/oci:1").returncode == 2, "it has a tag there, and no name"
    assert service.ask(ANNA, "pull", f"oci:{directory}/oci:1", "from/oci:1")["id"] == image_id


# One conversion for all


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
    until(lambda: _packer_runs(service))
    process.kill()
    process.wait()
    service.fault("")
    until(lambda: "left:1" in service.names(0))
    assert f"{image_id}.squashfs" in service.files()


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_says_that_the_pull_goes_on(service: Service) -> None:
    path, _ = fresh(service)
    service.fault("wait")
    command = service.command("pull", f"docker-archive:{path}", "ctrl-c:1")
    # a shell starts its background jobs with SIGINT ignored, and that is inherited
    process = subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=_heed_interrupts)
    until(lambda: _packer_runs(service))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert b"the pull continues in the background" in said
    service.fault("")
    until(lambda: "ctrl-c:1" in service.names(0))


# Content is what its id says


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
    until(lambda: _packer_runs(service))
    data = bytearray(Path(path).read_bytes())
    with open(path, "r+b") as stream:
        stream.write(bytes(len(data)))
    service.fault("")
    thread.join(30)
    made = (service.store / "images" / f"{image_id}.squashfs").read_bytes()
    service.ask(ANNA, "rm", "changed:1")
    service.ask(ANNA, "pull", f"docker-archive:{good}", "unchanged:1")
    assert (service.store / "images" / f"{image_id}.squashfs").read_bytes() == made


def _packer_runs(service: Service) -> bool:
    for name in os.listdir("/proc"):
        try:
            if (
                name.isdecimal()
                and str(service.directory / "packer").encode() in Path(f"/proc/{name}/cmdline").read_bytes()
            ):
                return True
        except OSError:
            continue
    return False


# Faults


@pytest.mark.parametrize("word", ["exit", "early", "kill", "garbage", "nothing"])
def test_a_packer_that_fails(service: Service, word: str) -> None:
    path, image_id = fresh(service, size=500_000)
    before = service.files()
    service.fault(word)
    failed = service.udi(ANNA, "pull", f"docker-archive:{path}", f"fails:{word}")
    assert failed.returncode == 6, failed.stderr
    assert "Traceback" not in failed.stderr
    assert service.files() == before
    assert f"fails:{word}" not in service.names(ANNA)
    service.fault("")
    assert service.ask(ANNA, "pull", f"docker-archive:{path}", f"fails:{word}")["id"] == image_id


def test_the_log_has_errors_for_what_failed_and_not_for_what_users_ask(service: Service) -> None:
    before = len(service.log.read_text())
    path, _ = fresh(service)
    service.ask(ANNA, "pull", f"docker-archive:{path}", "log:1")
    assert service.udi(ANNA, "lookup", "no/such:1").returncode == 3
    assert service.udi(BERT, "rm", "log:1").returncode == 3
    levels = {line.partition(" ")[0] for line in service.log.read_text()[before:].splitlines()}
    assert levels == {"INFO"}
    service.fault("exit")
    other, _ = fresh(service)
    assert service.udi(ANNA, "pull", f"docker-archive:{other}", "log:2").returncode == 6
    service.fault("")
    said = [line for line in service.log.read_text()[before:].splitlines() if not line.startswith("INFO ")]
    assert [line.startswith(f"ERROR gateway.service.requests: uid {ANNA}: ") for line in said] == [True]


def test_a_converter_killed(service: Service) -> None:
    path, image_id = fresh(service)
    before = service.files()
    service.fault("wait")
    results: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(
        target=lambda: results.append(service.udi(ANNA, "pull", f"docker-archive:{path}", "killed:1"))
    )
    thread.start()
    until(lambda: _packer_runs(service))
    os.kill(_worker(service), signal.SIGKILL)
    thread.join(30)
    assert results[0].returncode == 6
    assert "terminated unexpectedly (signal 9)" in results[0].stderr
    assert service.files() == before
    until(lambda: not _packer_runs(service))
    service.fault("")
    assert service.ask(ANNA, "pull", f"docker-archive:{path}", "killed:1")["id"] == image_id


def _worker(service: Service) -> int:
    for name in os.listdir("/proc"):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes() if name.isdecimal() else b""
        except OSError:
            continue
        if b"gateway.service.worker" in words and Path(f"/proc/{name}").stat().st_uid == ACCOUNT:
            return int(name)
    raise AssertionError("no worker runs")


def test_a_service_killed_in_the_middle(service: Service) -> None:
    path, image_id = fresh(service)
    before = service.files()
    service.fault("wait")
    results: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(
        target=lambda: results.append(service.udi(ANNA, "pull", f"docker-archive:{path}", "service:1"))
    )
    thread.start()
    until(lambda: _packer_runs(service))
    service.stop(signal.SIGKILL)
    assert service.udi(ANNA, "images").stderr.startswith("udi: the image gateway is not running")
    (service.store / "images" / ".new-0123").write_text("what a dead conversion left")
    service.start()
    until(lambda: service.log.read_text().count("serving on ") >= 2 and _queued(service))
    assert ".new-0123" not in service.files()
    service.fault("")
    thread.join(30)
    assert results[0].returncode == 0, "the client tried again"
    assert "trying again" in results[0].stderr
    assert service.ask(ANNA, "lookup", "service:1")["id"] == image_id
    until(lambda: not _packer_runs(service))  # the dead conversion's may live a little longer than its worker
    service.stop()
    service.start()
    assert service.files() == before | {f"{image_id}.squashfs", f"{image_id}.json"}


def _queued(service: Service) -> bool:
    return bool(client.status(service.site).queue)


@pytest.mark.parametrize("cut", [100, 3000, 11_000])
def test_a_truncated_archive(service: Service, cut: int) -> None:
    path, _ = fresh(service, size=10_000)
    before = service.files()
    os.truncate(path, cut)
    refused = service.udi(ANNA, "pull", f"docker-archive:{path}", "cut:1")
    assert refused.returncode == 5, refused.stderr
    assert len(refused.stderr.splitlines()) <= 2
    assert service.files() == before


def test_a_broken_archive_is_refused_by_the_service_too(service: Service) -> None:
    """The client looks first, but the service does not rely on it."""
    path = service.directory / "junk.tar"
    path.write_bytes(b"junk" * 1000)
    source = DockerArchive(str(path)).open("amd64", 1 << 20)
    with pytest.raises(UdiError, match="not a tar header"):
        client.ask(service.site, pull_of(source, "junk:1"), files=descriptors(source))
    source.close()


# Bounds


def _raw(service: Service, data: bytes) -> Event:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(service.site.gateway.socket)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return next_event(connection, 15)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"not json\n", "not valid JSON"),
        (b"[]\n", "not a JSON object"),
        (b'{"udi": 2, "do": "images"}\n', "version 2"),
        (b'{"udi": 1, "do": "destroy"}\n', "unknown request 'destroy'"),
        (b'{"udi": 1, "do": "lookup"}\n', "no reference"),
        (b'{"udi": 1, "do": ["lookup"]}\n', "unknown request"),
        (b'{"udi": 1, "do": "lookup", "reference": 5}\n', "reference of request must be of type string"),
        (b'{"udi": 1, "do": "lookup", "reference": "a", "tag": ""}\n', "unknown field 'tag'"),
        (b'{"udi": 1, "do": "lookup", "reference": "a;b"}\n', "not an image name"),
        (
            b'{"udi": 1, "do": "pull", "kind": "docker-archive", "tag": "", "files": [""], "name": "a"}\n',
            "brings 0 descriptors",
        ),
        (b'{"udi": 1, "do": "pull", "kind": "tarball", "tag": "", "files": []}\n', "unknown kind of source 'tarball'"),
        (b'{"udi": 1', "cut off"),
        (b"x" * 70_000, "larger than"),
        (b"[" * 60_000 + b"\n", "not valid JSON"),
    ],
)
def test_requests_that_cannot_be_meant(service: Service, data: bytes, said: str) -> None:
    event = _raw(service, data)
    assert isinstance(event, Failed)
    assert said in event.message


def test_a_descriptor_that_is_no_file_is_refused(service: Service) -> None:
    read, write = os.pipe()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(service.site.gateway.socket)
        message = {"udi": 1, "do": "pull", "kind": "docker-archive", "tag": "", "files": [""], "name": "x:1"}
        protocol.send(connection, message, [read])
        event = next_event(connection, 10)
    os.close(read)
    os.close(write)
    assert isinstance(event, Failed)
    assert event.message == "a descriptor of the request is not a regular file"


def test_lookup_has_a_time_limit(tmp_path: Path, service: Service) -> None:
    text = service.config.read_text().replace("gateway.sock", "deaf.sock")
    deaf = service.directory / "deaf.toml"
    deaf.write_text(text)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(service.own / "deaf.sock"))
        listening.listen(5)
        start = time.monotonic()
        with pytest.raises(TimedOut):
            client.lookup(config.load(str(deaf)), "x:1", timeout=0.3)
        assert time.monotonic() - start < 2
    with pytest.raises(UpstreamFailed, match="not running"):
        client.lookup(config.load(str(deaf)), "x:1", timeout=0.3)


def test_who_only_reads_waits_for_no_lock(service: Service) -> None:
    """While another process keeps the store from changing, its names are listed and found; an error is no list."""
    path, image_id = fresh(service)
    service.ask(ANNA, "pull", f"docker-archive:{path}", "listed:1")
    locks = Locks(service.site.gateway.state)
    with locks.holder() as holder:
        holder.take(locks.store())
        holder.take(locks.image(image_id))
        start = time.monotonic()
        assert "listed:1" in service.names(ANNA)
        assert service.ask(ANNA, "lookup", "listed:1")["id"] == image_id
        assert service.ask(ANNA, "inspect", "listed:1")["facts"]["id"] == image_id
        assert time.monotonic() - start < 10
    refs = service.store / "refs"
    refs.rename(refs.with_name("away"))
    try:
        failed = service.udi(ANNA, "images")
    finally:
        refs.with_name("away").rename(refs)
    assert (failed.returncode, failed.stdout) == (6, "")
    assert failed.stderr.startswith(f"udi: image store {service.store} cannot be used: ")


def test_serve_runs_as_the_stores_account_alone(service: Service) -> None:
    program: list[str] = [
        sys.executable,
        "-c",
        "from gateway.service.cli import main; main()",
        "--config",
        str(service.config),
        "serve",
    ]
    as_root = subprocess.run(program, capture_output=True, text=True, timeout=20, check=False)
    assert as_root.returncode == 2
    assert f"must run as the store's account {ACCOUNT}" in as_root.stderr
    assert f"hint: runuser -u {ACCOUNT} -- udi-gateway --config {service.config} serve" in as_root.stderr
    twice = subprocess.run(
        program, capture_output=True, text=True, timeout=20, user=ACCOUNT, group=ACCOUNT, check=False
    )
    assert twice.returncode == 2
    assert "another gateway is running" in twice.stderr


def test_the_layout_of_the_store(service: Service) -> None:
    assert [mode_of(service.store / name) for name in ("images", "refs", "plans")] == [0o755, 0o755, 0o711]


def test_missing_programs_are_told_at_the_start() -> None:
    tables = '[[systems]]\nname = "two"\npath = "/two"\nhost = "two"\nssh = ["/no/ssh", "-q"]\n'
    with tempfile.TemporaryDirectory() as directory:
        running = Service(Path(directory), tables=tables)
        running.start()
        running.stop()
        said = running.log.read_text()
    assert "systems[0].ssh: /no/ssh is not an executable program; pulls will fail" in said
    assert "gateway.tar2sqfs" not in said
