"""Registries for tests: Debian's docker-registry as it is, with logins or TLS, and what it takes to push to one."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from tests.gateway.archives import Layer, compressed, image_config, layer_tar
from udi.gatewayconfig import GatewayConfig
from udi.registries import RegistryConfig, RegistryHostConfig
from xcsim.ports import free_port

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
USERS = {"anna": "anna's: word", "bert": "bert's word"}


def registry_config(*names: str, **more: Any) -> RegistryConfig:
    """Settings of a site that takes images from these registries without TLS; the first is its default."""
    hosts = tuple(RegistryHostConfig(name=name, plain_http=True) for name in names)
    return RegistryConfig(**{"default": names[0], "hosts": hosts, "silence": 2, "certificates": "/nowhere", **more})


def gateway_config(state: Path, **more: Any) -> GatewayConfig:
    return GatewayConfig(state=str(state), **more)


class DebianRegistry:
    """A running docker-registry on loopback, its data below `directory`. A context manager."""

    def __init__(self, directory: Path, *, login: bool = False, tls: bool = False) -> None:
        self.directory = directory
        self._login, self._tls = login, tls
        self.name = f"localhost:{free_port()}" if tls else f"127.0.0.1:{free_port()}"
        self.authority = directory / "authority.crt"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.directory.mkdir()
        document: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": str(self.directory / "data")}, "delete": {"enabled": True}},
            "http": {"addr": self.name.replace("localhost", "127.0.0.1")},
            "validation": {"manifests": {"urls": {"allow": [".*"]}}},
        }
        if self._login:
            document["auth"] = {"htpasswd": {"realm": "test", "path": str(self._passwords())}}
        if self._tls:
            document["http"]["tls"] = self._certificate()
        configuration = self.directory / "config.yml"
        configuration.write_text(json.dumps(document))  # JSON is YAML
        self.log = self.directory / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["/usr/bin/docker-registry", "serve", configuration], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", int(self.name.rpartition(":")[2])), 1).close()
                return self
            except OSError:
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(30)
        shutil.rmtree(self.directory)

    def fetches(self, digest: str) -> int:
        """How often a blob was sent."""
        lines = self.log.read_text().splitlines()
        return sum('"GET /v2/' in line and digest in line and '" 200 ' in line for line in lines)

    def push(
        self,
        name: str,
        layers: Sequence[Layer],
        *,
        tag: str = "1",
        how: str = "gzip",
        family: str = OCI,
        config: dict[str, Any] | None = None,
    ) -> Pushed:
        """Push an image of these layers. `name` is the repository's; the login is anna's where one is needed."""
        plain = [layer if isinstance(layer, bytes) else layer_tar(layer) for layer in layers]
        text = image_config(plain, **(config or {}))
        manifest, digests = manifest_of(text, [compressed(layer, how) for layer in plain], how, family)
        blobs = [text, *(compressed(layer, how) for layer in plain)]
        for blob in blobs:
            self.put_blob(name, blob)
        digest = self.put_manifest(name, tag, manifest, manifest["mediaType"])
        return Pushed(hashlib.sha256(text).hexdigest(), digest, digests, manifest["mediaType"], len(json_of(manifest)))

    def put_blob(self, name: str, blob: bytes) -> None:
        status, headers = self._ask("POST", f"/v2/{name}/blobs/uploads/", b"", {})
        assert status == 202, (status, headers)
        parts = urlsplit(headers["Location"])
        target = f"{parts.path}?{parts.query}&digest=sha256:{hashlib.sha256(blob).hexdigest()}"
        status, headers = self._ask("PUT", target, blob, {"Content-Type": "application/octet-stream"})
        assert status == 201, (status, headers)

    def put_manifest(self, name: str, tag: str, manifest: dict[str, Any], kind: str) -> str:
        text = json_of(manifest)
        status, headers = self._ask("PUT", f"/v2/{name}/manifests/{tag}", text, {"Content-Type": kind})
        assert status == 201, (status, headers)
        return f"sha256:{hashlib.sha256(text).hexdigest()}"

    def manifest_text(self, name: str, reference: str) -> bytes:
        """A manifest as it is stored."""
        status, headers = self._ask(
            "GET", f"/v2/{name}/manifests/{reference}", b"", {"Accept": f"{OCI}.manifest.v1+json"}
        )
        assert status == 200, (status, headers)
        return headers["body"].encode()

    def blob_text(self, name: str, digest: str) -> bytes:
        """A blob that is text."""
        status, headers = self._ask("GET", f"/v2/{name}/blobs/{digest}", b"", {})
        assert status == 200, (status, headers)
        return headers["body"].encode()

    def _ask(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
        if self._login:
            word = base64.b64encode(f"anna:{USERS['anna']}".encode()).decode()
            headers = {**headers, "Authorization": f"Basic {word}"}
        if self._tls:
            context = ssl.create_default_context(cafile=str(self.authority))
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(self.name, context=context)
        else:
            connection = http.client.HTTPConnection(self.name)
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            said = answer.read()
            return answer.status, dict(answer.getheaders()) | {"body": said.decode()}
        finally:
            connection.close()

    def _passwords(self) -> Path:
        path = self.directory / "htpasswd"
        for number, (user, password) in enumerate(USERS.items()):
            made = ["-c"] if number == 0 else []
            subprocess.run(["htpasswd", "-B", "-C", "4", "-i", *made, path, user], input=password.encode(), check=True,
                           capture_output=True)  # fmt: skip
        return path

    def _certificate(self) -> dict[str, str]:
        """A certificate for localhost by an authority of its own."""
        at = self.directory
        (at / "names").write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
        for argv in (
            ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test authority",
             "-addext", "keyUsage=critical,keyCertSign", "-keyout", "authority.key", "-out", "authority.crt"],
            ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", "own.key",
             "-out", "own.csr"],
            ["x509", "-req", "-in", "own.csr", "-CA", "authority.crt", "-CAkey", "authority.key", "-CAcreateserial",
             "-days", "2", "-extfile", "names", "-out", "own.crt"],
        ):  # fmt: skip
            subprocess.run(["/usr/bin/openssl", *argv], cwd=at, check=True, capture_output=True)
        return {"certificate": str(at / "own.crt"), "key": str(at / "own.key")}


class Pushed:
    """What a push made."""

    def __init__(self, image_id: str, digest: str, layers: list[str], kind: str, size: int) -> None:
        self.id, self.digest, self.layers, self.kind, self.size = image_id, digest, layers, kind, size

    def entry(self, arch: str) -> dict[str, Any]:
        """Its entry in a manifest list."""
        platform = {"architecture": arch, "os": "linux"}
        return {"mediaType": self.kind, "digest": self.digest, "size": self.size, "platform": platform}


def manifest_of(
    config: bytes, layers: Sequence[bytes], how: str, family: str = OCI
) -> tuple[dict[str, Any], list[str]]:
    """The manifest of an image, and the digests of its layers."""
    if family == OCI:
        kinds = (f"{OCI}.manifest.v1+json", f"{OCI}.config.v1+json", f"{OCI}.layer.v1.tar")
        kinds = (*kinds[:2], kinds[2] + {"plain": "", "zstd": "+zstd"}.get(how, "+gzip"))
    else:
        kinds = (
            f"{DOCKER}.distribution.manifest.v2+json",
            f"{DOCKER}.container.image.v1+json",
            f"{DOCKER}.image.rootfs.diff.tar.gzip",
        )
    described = [_descriptor(layer, kinds[2]) for layer in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": kinds[0],
        "config": _descriptor(config, kinds[1]),
        "layers": described,
    }
    return manifest, [str(layer["digest"]) for layer in described]


def json_of(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


def _descriptor(blob: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}", "size": len(blob)}
