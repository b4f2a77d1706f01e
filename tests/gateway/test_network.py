"""Clients on other machines: MUNGE proves who asks and who answers, archives come in the connection."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.client import client
from gateway.sources.files import DockerArchive
from gateway.wire import channels
from gateway.wire.munge import Munge
from tests.gateway.archives import BASE, file, layer_tar, make_archive, make_oci_layout
from tests.gateway.munged import Munged
from tests.gateway.service import ACCOUNT, ANNA, BERT, Service, descriptors, directory_for_all, pull_of, run_as, until
from tests.gateway.support import needs_root
from udi import config
from udiroot.errors import ImageInvalid, NotPermitted, UdiError, UpstreamFailed
from xcsim.ports import free_port

pytestmark = needs_root


class Far(Service):
    """A service that listens on the network too, whose clients know of no UNIX socket."""

    def __init__(self, directory: Path, munge: str) -> None:
        self.port = free_port()
        super().__init__(directory, f'address = "127.0.0.1:{self.port}"\nmunge = "{munge}"\nconnections_per_user = 20')
        self.here = self.config
        self.there = directory / "there.toml"
        self.there.write_text(self.config.read_text().replace("/gateway.sock", "/not-on-this-machine.sock"))
        self.there.chmod(0o644)

    @property
    def far_site(self) -> config.SiteConfig:
        return config.load(str(self.there))

    def command(self, *words: str) -> list[str]:
        return [str(self.there) if word == str(self.here) else word for word in super().command(*words)]


@pytest.fixture(scope="module")
def munged() -> Iterator[Munged]:
    with directory_for_all("udi-munge-") as directory:
        running = Munged(directory / "munge")
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="module")
def far(munged: Munged) -> Iterator[Far]:
    with directory_for_all("udi-far-") as directory, Far(directory, munged.socket) as running:
        yield running


def archive(far: Service, name: str, size: int = 1000, owner: int = ANNA) -> tuple[str, str]:
    path = far.directory / f"{name}.tar"
    image_id = make_archive(path, [[*BASE, file("data", b"x" * size)], [file(name)]], tags=[f"{name}:1"])
    shutil.chown(path, owner)
    path.chmod(0o400)
    return str(path), image_id


def raw(far: Far) -> socket.socket:
    return socket.create_connection(("127.0.0.1", far.port), 5)


def answer(connection: socket.socket) -> bytes:
    """All that comes until the service ends the connection."""
    got = b""
    while piece := connection.recv(65536):
        got += piece
    return got


def request(far: Far, text: dict[str, object], for_uid: int = ACCOUNT) -> bytes:
    message = {"udi": 1, "nonce": "0" * 32, **text}
    return Munge(far.site.gateway.munge).encode(json.dumps(message).encode(), for_uid) + b"\n"


def proof(far: Far, *files: bytes, nonce: str = "0" * 32) -> bytes:
    """What follows the files of a request."""
    text = {"nonce": nonce, "sha256": [hashlib.sha256(each).hexdigest() for each in files]}
    return Munge(far.site.gateway.munge).encode(json.dumps(text).encode(), ACCOUNT) + b"\n"


def test_pull_and_look_up_from_elsewhere(far: Far) -> None:
    path, image_id = archive(far, "elsewhere", 3_000_000)
    done = far.ask(ANNA, "pull", f"docker-archive:{path}")
    assert (done["reference"], done["id"]) == ("elsewhere:1", image_id)
    assert far.ask(ANNA, "lookup", "elsewhere:1")["id"] == image_id
    assert far.udi(BERT, "lookup", "elsewhere:1").returncode == 3, "who asks is who MUNGE says"
    assert far.ask(ANNA, "inspect", "elsewhere:1")["facts"]["id"] == image_id


def test_a_layout_of_many_files_from_elsewhere(far: Far) -> None:
    image_id = make_oci_layout(far.directory / "layout", [BASE, [file("a", b"1" * 70_000)], [file("b")]], how="gzip")
    assert far.ask(BERT, "pull", f"oci:{far.directory}/layout:1", "layout:1")["id"] == image_id


def test_an_answer_of_many_credentials(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {f"label{n}": "x" * 1000 for n in range(900)}
    path = far.directory / "labels.tar"
    image_id = make_archive(path, [BASE], config={"config": {"Labels": labels}}, tags=["labels:1"])
    path.chmod(0o644)
    assert far.ask(ANNA, "pull", f"docker-archive:{path}")["id"] == image_id
    assert far.ask(ANNA, "inspect", "labels:1")["facts"]["labels"] == labels


@pytest.mark.parametrize(
    "line",
    [
        b'{"udi": 1, "do": "images"}\n',
        b"MUNGE:AwQFAAC:\n",
        b"\n",
        b"x" * 200_000,
        b"",
    ],
)
def test_without_proof_nothing_is_answered(far: Far, line: bytes) -> None:
    with raw(far) as connection:
        try:
            connection.sendall(line)
            connection.shutdown(socket.SHUT_WR)
            assert answer(connection) == b""
        except OSError as error:
            # so much was unread that the end came as a reset
            assert error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)


def test_a_credential_counts_once(far: Far) -> None:
    line = request(far, {"do": "images"})
    for expected in (True, False):
        with raw(far) as connection:
            connection.sendall(line)
            assert bool(answer(connection)) is expected


def test_a_credential_made_for_others_or_with_another_key(far: Far, tmp_path: Path) -> None:
    stranger = Munged(tmp_path / "stranger")
    try:
        other_key = Munge(stranger.socket).encode(b'{"udi": 1, "do": "images"}', ACCOUNT) + b"\n"
    finally:
        stranger.stop()
    for line in (other_key, request(far, {"do": "images"}, for_uid=ANNA)):
        with raw(far) as connection:
            connection.sendall(line)
            assert answer(connection) == b""


def test_nobody_but_the_gateway_can_read_a_request(far: Far) -> None:
    line = request(far, {"do": "login", "password": "secret"}).strip()
    code = "import sys; from gateway.wire.munge import Munge; print(Munge(sys.argv[1]).decode(sys.argv[2].encode()))"
    program = [sys.executable, "-c", code, far.site.gateway.munge, line.decode()]
    read = run_as(BERT, program, cwd=Path(__file__).parents[2])
    assert "issued for another user" in read.stderr
    assert "secret" not in read.stdout + read.stderr


def test_a_reply_is_the_callers_alone_and_fits_its_request(far: Far) -> None:
    with raw(far) as connection:
        connection.sendall(request(far, {"do": "images"}))
        reply = Munge(far.site.gateway.munge).decode(answer(connection).strip())
    assert reply.uid == ACCOUNT
    assert json.loads(reply.text)["nonce"] == "0" * 32


def test_an_impostor_is_not_believed(far: Far) -> None:
    """One who holds the port, and even has the site's key, is not the gateway's account."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def impostor() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                lie = {"nonce": "?", "count": 0, "last": True, "text": '{"event": "done", "id": "00"}'}
                connection.sendall(Munge(far.site.gateway.munge).encode(json.dumps(lie).encode(), 0) + b"\n")

        thread = threading.Thread(target=impostor)
        thread.start()
        text = far.there.read_text().replace(f":{far.port}", f":{port}")
        other = far.directory / "impostor.toml"
        other.write_text(text)
        with pytest.raises(UpstreamFailed, match="could not prove that it is the gateway"):
            client.lookup(config.load(str(other)), "x:1")
        thread.join(30)


def test_what_arrives_must_be_what_was_sent(far: Far) -> None:
    """Files are no credentials: what they must be is in the request."""
    path, _ = archive(far, "swapped", owner=0)
    source = DockerArchive(str(path)).open("amd64", 1 << 20)
    request = dataclasses.replace(pull_of(source, "swapped:1"), image="ab" * 32)
    with pytest.raises(ImageInvalid, match="not the image that was sent"):
        client.ask(far.far_site, request, files=descriptors(source))
    source.close()
    assert "swapped:1" not in far.names(0)


def test_files_that_were_changed_on_their_way(far: Far) -> None:
    """Also such as become an image only there, whose id nobody knows before."""
    before = far.files()
    pull: dict[str, object] = {"do": "pull", "kind": "rootfs-archive", "tag": "", "files": [""], "name": "changed:1"}
    tree = layer_tar([*BASE, file("data", b"as it was sent")])
    changed = tree.replace(b"as it was sent", b"as it arrived.")
    for sent, told, words in (
        (changed, proof(far, tree), "what arrived are not the files that were sent"),
        (tree, proof(far), "what arrived are not the files that were sent"),
        (tree, proof(far, tree, nonce="1" * 32), "the files do not belong to this request"),
        (tree, b"MUNGE:AwQFAAC:\n", ""),
    ):
        with raw(far) as connection:
            connection.sendall(request(far, pull | {"sizes": [len(tree)]}) + sent + told)
            said = [
                Munge(far.site.gateway.munge).decode(line).text.decode() for line in answer(connection).splitlines()
            ]
        assert '"error' in said[-1] and words in said[-1].replace("\\", ""), said
    assert far.files() == before and "changed:1" not in far.names(0)
    path = far.directory / "tree.tar"
    path.write_bytes(tree)
    path.chmod(0o444)
    assert far.ask(ANNA, "pull", f"rootfs-archive:{path}", "kept:1")["reference"] == "kept:1"


def test_a_stream_is_bounded_and_may_be_cut_off(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    before = far.files()
    pull: dict[str, object] = {"do": "pull", "kind": "docker-archive", "tag": "", "files": [""], "name": "cut:1"}
    for sizes, sent, words in (
        ([1 << 40], b"", "limit set by gateway.max_image_bytes"),
        ([-1], b"", "sizes of the request's files must be integers"),
        ([5000], b"x" * 4000, "cut off"),
        ([3], b"x" * 3, "the sha256 of its files is cut off"),
        ([3], b"x" * 3 + proof(far, b"x" * 3), "cut off within a header"),
        ([3, 1], b"x" * 4 + proof(far, b"x" * 3, b"x"), "brings 2 descriptors"),
    ):
        with raw(far) as connection:
            connection.sendall(request(far, pull | {"sizes": sizes}) + sent)
            connection.shutdown(socket.SHUT_WR)
            munge, said = Munge(far.site.gateway.munge), b""
            for line in answer(connection).splitlines():
                said = munge.decode(line).text
            assert words in said.decode(), said
    assert far.files() == before


def _is_refused(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(10) == b""
    except TimeoutError:
        return False


def test_silent_connections_of_one_address_are_bounded(far: Far) -> None:
    silent = [raw(far) for _ in range(40)]
    try:
        until(lambda: sum(map(_is_refused, silent)) >= 20)
        time.sleep(0.3)
        assert sum(map(_is_refused, silent)) == 20
    finally:
        for connection in silent:
            connection.close()


def test_with_munge_down_there_is_one_clear_line(far: Far, tmp_path: Path) -> None:
    text = far.there.read_text().replace(far.site.gateway.munge, "/nonexistent/munge")
    other = far.directory / "no-munge.toml"
    other.write_text(text)
    with pytest.raises(UpstreamFailed, match="munge: ") as told:
        client.lookup(config.load(str(other)), "x:1")
    assert "munged running" in told.value.hint


def test_a_truncated_credential_is_no_proof(munged: Munged) -> None:
    munge = Munge(munged.socket)
    credential = munge.encode(b"text", 0)
    for cut in (0, 5, len(credential) // 2, len(credential) - 3):
        with pytest.raises(UdiError):
            munge.decode(credential[:cut])
    assert munge.decode(credential).text == b"text"
    with pytest.raises(NotPermitted, match="used before"):
        munge.decode(credential)


def test_pieces_of_a_file_that_became_shorter(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * (3 << 20))
    with path.open("r+b") as stream:
        pieces = channels._pieces(stream.fileno())
        next(pieces)
        stream.truncate(10)
        with pytest.raises(ImageInvalid, match="became shorter"):
            list(pieces)
