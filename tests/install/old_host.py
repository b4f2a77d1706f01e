"""The bundle on a host that is too old for us: Debian 11, whose glibc is 2.31, with no Python, no network, no compiler.
Also what install.sh refuses, and that it leaves nothing half-made."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurmsim.host import Host
from tests.install import fresh

_CONFIGURATION = """\
[store]
path = "/srv/udi"
account = "udi"
[install]
python = "/opt/udi/python/bin/python3"
[[registry.hosts]]
name = "docker.io"
"""
_SERVE = "exec setpriv --reuid=udi --regid=udi --init-groups /opt/udi/bin/udi-gateway serve"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The host, with the bundle unpacked in /root/bundle."""
    files = tmp_path_factory.mktemp("files")
    for file in fresh.bundle():
        (files / file.name).write_bytes(file.read_bytes())
    fresh.image(files / "debian.tar")
    host = fresh.host("old", fresh.OLD, {str(files): "/mnt/files"})
    host.start()
    try:
        fresh.run(host, "mkdir /root/bundle; tar -xzf /mnt/files/*.tar.gz -C /root/bundle --strip-components 1")
        yield host
    finally:
        host.stop()


def refused(host: Host, words: str = "") -> str:
    """What install.sh says when it refuses, on one line with its hint; nothing is below /opt/udi then."""
    done = fresh.run(host, f"/root/bundle/install.sh {words}", check=False)
    assert done.returncode == 1
    assert fresh.run(host, "ls -A /opt/udi 2>/dev/null || true").stdout == ""
    return " ".join(line for line in done.stderr.splitlines() if line.startswith(("install.sh:", "hint:")))


def test_a_host_without_a_python_is_told_of_the_bundles(old: Host) -> None:
    assert refused(old) == (
        "install.sh: /usr/bin/python3 is not an executable program hint: install Python 3.11, or use --python bundle"
    )
    assert refused(old, "--python bin/python3").startswith("install.sh: --python must be an absolute path or 'bundle'")
    assert "unknown argument '--prefix'" in refused(old, "--prefix /elsewhere")


def test_a_python_of_another_version(old: Host) -> None:
    script = old.path("/root/other-python")
    script.write_text("#!/bin/sh\necho Python 3.9\n")
    script.chmod(0o755)
    assert "is Python 3.9, and the packages of this bundle are for Python 3.11" in refused(
        old, f"--python /root/{script.name}"
    )


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("echo >> LICENSE", "this bundle is damaged"),
        ("rm LICENSE", "this bundle is damaged"),
        ("touch wheels/another-1.0-py3-none-any.whl", "another-1.0-py3-none-any.whl is not of this bundle"),
        ("ln -s /etc/passwd wheels/one-1.0-py3-none-any.whl", "one-1.0-py3-none-any.whl is not of this bundle"),
        ("sed -i /LICENSE/d SHA256SUMS", "LICENSE is not of this bundle"),
        ("rm SHA256SUMS", "SHA256SUMS not found"),
    ],
)
def test_a_damaged_bundle(old: Host, damage: str, said: str) -> None:
    fresh.run(old, "cp -a /root/bundle /root/whole")
    try:
        fresh.run(old, f"cd /root/bundle; {damage}")
        assert said in refused(old, "--python bundle")
    finally:
        fresh.run(old, "rm -rf /root/bundle; mv /root/whole /root/bundle")


def test_a_disk_that_fills_leaves_nothing_half_made(old: Host) -> None:
    fresh.run(old, "mkdir -p /opt/udi; mount -t tmpfs -o size=60m small /opt/udi")
    try:
        done = fresh.run(old, "/root/bundle/install.sh --python bundle", check=False)
        assert done.returncode != 0
        left = fresh.run(old, "ls -A /opt/udi").stdout.split()
        assert not [name for name in left if name.startswith((".", "venv"))]
    finally:
        fresh.run(old, "umount /opt/udi; rmdir /opt/udi")


def test_it_works_with_the_interpreter_of_the_bundle(old: Host, tmp_path: Path) -> None:
    """Installed twice, as by somebody who is not sure; then the gateway converts an image."""
    assert "GLIBC 2.31" in fresh.run(old, "ldd --version").stdout
    assert fresh.run(old, "command -v python3 cc pip3", check=False).stdout == ""
    first = fresh.run(old, "/root/bundle/install.sh --python bundle; ls -l --time-style=+- /opt/udi").stdout
    again = fresh.run(old, "/root/bundle/install.sh --python bundle; ls -l --time-style=+- /opt/udi").stdout
    assert first == again and "installed: shifter-xc" in first
    assert fresh.run(old, "find /opt/udi ! -user root -o ! -type l -perm /022").stdout == ""

    old.path("/root/udi.toml").write_text(_CONFIGURATION)
    fresh.run(old, "install -D -m 0644 /root/udi.toml /etc/udi/udi.toml")
    fresh.run(
        old, "useradd --system --user-group udi; install -d -o udi /srv/udi /run/udi-gateway /var/lib/udi-gateway"
    )
    installed = fresh.run(old, "/opt/udi/venv/bin/udi-admin install").stdout.split()
    assert "/opt/udi/node/udi.zip" in installed
    gateway = old.popen(["/bin/sh", "-c", _SERVE], env=fresh.ENVIRONMENT, stderr=subprocess.PIPE)
    try:
        assert gateway.stderr and "serving on" in gateway.stderr.readline()
        pulled = fresh.run(old, "/opt/udi/bin/udi pull docker-archive:/mnt/files/debian.tar debian:11").stdout
    finally:
        gateway.kill()
        gateway.wait()
    name, image = pulled.split()
    assert name == "debian:11" and old.path(f"/srv/udi/images/{image}.squashfs").stat().st_size > 10 << 20


def test_what_a_killed_one_left_goes_after_an_hour(old: Host) -> None:
    killed = ("/opt/udi/.venv-0-0.77", "/opt/udi/.python.78", "/opt/udi/lib/.udi-run.79", "/opt/udi/lib/sshd/.ssh.80")
    others = ("/opt/udi/.venv.81", "/opt/udi/.theirs.d")
    fresh.run(
        old,
        f"mkdir -p {killed[0]}/bin; ln -s gone {killed[1]}; touch {' '.join((*killed[2:], *others))};"
        f" touch --no-dereference --date '2 hours ago' {' '.join((*killed, others[1]))}",
    )
    fresh.run(old, "/root/bundle/install.sh --python bundle")
    left = fresh.run(old, "find /opt/udi /opt/udi/lib /opt/udi/lib/sshd -maxdepth 1 -name '.*'").stdout.split()
    assert sorted(left) == sorted(others)
    fresh.run(old, f"rm {' '.join(others)}")


def test_a_directory_that_is_in_the_way_stays(old: Host) -> None:
    fresh.run(old, "mv /opt/udi/venv /root/venv; mkdir /opt/udi/venv")
    done = fresh.run(old, "/root/bundle/install.sh --python bundle", check=False)
    assert done.returncode == 1 and "/opt/udi/venv was not installed by install.sh" in done.stderr
    assert "mv /opt/udi/venv /opt/udi/venv.old" in done.stderr
    fresh.run(old, "rmdir /opt/udi/venv; mv /root/venv /opt/udi/venv; /opt/udi/bin/udi --version")
