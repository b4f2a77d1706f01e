"""`udi-admin check-config` on a host: all is well, and each damage gives exactly the rows that are about it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from admin.checks.as_account import as_account
from admin.checks.check import Level
from admin.config_check import read_subject
from tests.unit.cray_standins import StandIns
from tests.unit.test_config_check import NOBODY, change
from torque_hooks.site_files import site_files as torque_files
from udi import nodezip
from udi.config import load, parse
from udi.sitefiles import Renderer, marked
from udiroot.errors import TimedOut, UpstreamFailed

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the configuration must be root's, and the store another's")

_ADMIN = [sys.executable, "-c", "from admin.cli import main; main()"]
Rows = set[tuple[str, str]]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("zip") / "udi.zip"
    nodezip.build(parse('[store]\npath = "/lus/udi"\n', "udi.toml"), str(path))
    return path.read_bytes()


@pytest.fixture
def host(tmp_path: Path, archive: bytes) -> StandIns:
    """A host on which everything is well."""
    (tmp_path / "udi.zip").write_bytes(archive)
    return furnished(tmp_path)


def furnished(directory: Path) -> StandIns:
    """A host of a Cray, the node software beside; the store is nobody's."""
    for above in (directory, *directory.parents):
        if above.stat().st_mode & 0o055 != 0o055 and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o055)
    cray = StandIns(directory)
    cray.tell("qstat.out", "version: 6.1.1\n")
    change(cray, "install", f'zip = "{directory}/udi.zip"')
    change(cray, "install", f'udi_run_built = "{directory}/none"')
    change(cray, "node", f'zip = "/dsl{directory}/udi.zip"')
    change(cray, "store", 'account = "nobody"')
    change(cray, "gateway", f'state = "{directory}/gateway"')
    for path in (cray.store, *cray.store.rglob("*")):
        os.chown(path, NOBODY.uid, NOBODY.gid)
    return cray


def rows(host: StandIns) -> Rows:
    """The rows that are not ok: check and level."""
    subject, errors = read_subject(str(host.config_path))
    assert subject, errors
    return {(row.check, row.level.value) for row in subject.rows() if row.level is not Level.OK}


def test_all_is_well(host: StandIns) -> None:
    subject, _ = read_subject(str(host.config_path))
    assert subject
    before = sorted(host.directory.rglob("*"))
    found = subject.rows()
    left = set(host.directory.rglob("*")) - set(before)
    assert {path.parent for path in left} <= {host.bin}, "only the stand-ins write down how they were called"
    assert [row for row in found if row.level is not Level.OK] == []
    assert len({row.check for row in found}) == len(found), "one row a check"


def others_write_the_image(host: StandIns) -> None:
    [image] = (host.store / "images").glob("*.squashfs")
    os.chown(image, 0, 0)
    image.chmod(0o600)


def no_gateway(host: StandIns) -> None:
    (host.directory / "gateway").mkdir()
    os.chown(host.directory / "gateway", NOBODY.uid, NOBODY.gid)


def closed_gateway(host: StandIns) -> None:
    (host.directory / "gateway").mkdir()


def dead_gateway(host: StandIns) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(host.directory / "gateway.sock"))


def no_munge(host: StandIns) -> None:
    change(host, "gateway", 'address = "127.0.0.1:9"')
    change(host, "gateway", f'munge = "{host.directory}/no-munge"')


def log_is_a_directory(host: StandIns) -> None:
    (host.directory / "log/hooks.log").mkdir(parents=True)


def other_zip(host: StandIns) -> None:
    path = host.directory / "udi.zip"
    path.write_bytes(path.read_bytes().replace(b"UDI-REPORT", b"UDI-RAPPORT", 1)[:-1])


def closed_zip(host: StandIns) -> None:
    (host.directory / "udi.zip").chmod(0o600)


def no_zip(host: StandIns) -> None:
    (host.directory / "udi.zip").unlink()


def zip_elsewhere(host: StandIns) -> None:
    change(host, "node", 'zip = "/dsl/opt/udi/node/other.zip"')


def old_python(host: StandIns) -> None:
    host.program("python", '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.6.8 || exec /usr/bin/python3 "$@"\n')
    change(host, "install", f'python = "{host.bin}/python"')


def server_is_down(host: StandIns) -> None:
    host.tell("qstat.exit", "111")


def not_torque(host: StandIns) -> None:
    host.tell("qstat.out", "")


def old_torque(host: StandIns) -> None:
    host.tell("qstat.out", "version: 2.4.16\n")


def alps_is_down(host: StandIns) -> None:
    host.tell("apstat.exit", "1")


def template(text: str) -> Callable[[StandIns], None]:
    def damage(host: StandIns) -> None:
        (host.directory / "templates").mkdir()
        (host.directory / "templates/motd.j2").write_text(text)
        change(host, "etc", f'templates = "{host.directory}/templates"')

    return damage


def hooks(host: StandIns, prologue: str, epilogue: str) -> None:
    (host.directory / "mom_priv").mkdir()
    site = load(str(host.config_path))
    files = {os.path.basename(file.path): file for file in torque_files(site, Renderer(site, site.path))}
    for name, text in (("prologue", prologue), ("epilogue", epilogue)):
        path = host.directory / "mom_priv" / name
        if text:
            path.write_text(marked(files[name].text) if text == "ours" else text)
            path.chmod(0o555)


def old_hook(host: StandIns) -> None:
    hooks(host, "ours", marked("#!/bin/sh\nexit 0\n"))


def hook_of_the_sites(host: StandIns) -> None:
    hooks(host, "#!/bin/sh\nexit 0\n", "ours")


def no_epilogue(host: StandIns) -> None:
    hooks(host, "ours", "")


def filter_of_the_sites(host: StandIns) -> None:
    (host.directory / "torque").mkdir()
    (host.directory / "torque/torque.cfg").write_text("SUBMITFILTER /site/filter\n")


def no_filter(host: StandIns) -> None:
    (host.directory / "torque").mkdir()
    (host.directory / "torque/torque.cfg").write_text("QSUBSLEEP 1\n")


def short_alarm(host: StandIns) -> None:
    hooks(host, "ours", "ours")
    (host.directory / "mom_priv/config").write_text("$prologalarm 30\n")


def nowhere_to_log(host: StandIns) -> None:
    change(host, "jobs", 'log = ""')


def theirs_store(host: StandIns) -> None:
    os.chown(host.store, 12345, 0)


DAMAGES: list[tuple[Callable[[StandIns], None], Rows]] = [
    (theirs_store, {("store.owner", "error"), ("store.write", "error")}),
    (others_write_the_image, {("store.read", "error")}),
    (no_gateway, {("gateway.socket", "error")}),
    (closed_gateway, {("gateway.state", "error"), ("gateway.socket", "error")}),
    (dead_gateway, {("gateway.socket", "error")}),
    (no_munge, {("gateway.munge", "error"), ("gateway.address", "error")}),
    (log_is_a_directory, {("places", "error"), ("jobs.log", "error")}),
    (nowhere_to_log, {("jobs.log", "warning")}),
    (other_zip, {("zip.version", "error")}),
    (closed_zip, {("zip.version", "error")}),
    (no_zip, {("zip.version", "warning")}),
    (zip_elsewhere, {("zip.path", "error")}),
    (old_python, {("version.python", "error")}),
    (server_is_down, {("torque.server", "error")}),
    (not_torque, {("version.qstat", "warning")}),
    (old_torque, {("version.qstat", "error")}),
    (alps_is_down, {("alps.apstat", "error")}),
    (template("{% if %}"), {("templates", "error")}),
    (template("{{ no_such }}"), {("templates", "error")}),
    (old_hook, {("installed", "warning")}),
    (hook_of_the_sites, {("torque.hooks", "warning")}),
    (no_epilogue, {("torque.hooks", "warning")}),
    (filter_of_the_sites, {("torque.filter", "warning")}),
    (no_filter, {("torque.filter", "warning")}),
    (short_alarm, {("torque.prologalarm", "error")}),
]


@pytest.mark.parametrize(("damage", "expected"), DAMAGES)
def test_a_damage_is_exactly_its_rows(host: StandIns, damage: Callable[[StandIns], None], expected: Rows) -> None:
    damage(host)
    assert rows(host) == expected


@contextmanager
def mounted(path: Path, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "check", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


def test_a_store_that_is_full_or_read_only(host: StandIns) -> None:
    with mounted(host.store, f"size=64k,uid={NOBODY.uid},mode=755"):
        assert rows(host) == set()
        with (host.store / "last").open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space"):
            while True:
                stream.write(bytes(4096))
        assert rows(host) == {("store.write", "error")}
        subprocess.run(["mount", "-o", "remount,ro", host.store], check=True)
        assert rows(host) == {("store.write", "error")}
    spool = host.directory / "spool"
    spool.mkdir()
    with mounted(spool, "ro"):
        assert rows(host) == {("jobs.state", "error")}


def sleep() -> str:
    time.sleep(60)
    return ""


def die() -> str:
    os.kill(os.getpid(), 9)
    return ""


def test_what_another_account_does_ends_in_time(tmp_path: Path) -> None:
    assert as_account(NOBODY.uid, NOBODY.gid, lambda: f"{os.getuid()} {os.getgroups()}", 10) == f"{NOBODY.uid} []"
    groups = as_account(NOBODY.uid, NOBODY.gid, lambda: str(os.getgroups()), 10, groups=(12, 13))
    assert groups == "[12, 13]"
    began = time.monotonic()
    with pytest.raises(TimedOut, match="not within 0 seconds"):
        as_account(NOBODY.uid, NOBODY.gid, sleep, 0.2)
    assert time.monotonic() - began < 30
    (tmp_path / "x").touch(mode=0o600)
    with pytest.raises(UpstreamFailed, match=r"x: permission denied"):
        as_account(NOBODY.uid, NOBODY.gid, lambda: (tmp_path / "x").read_text(), 10)
    with pytest.raises(UpstreamFailed, match="died"):
        as_account(NOBODY.uid, NOBODY.gid, die, 10)


# What is printed


def run_admin(host: StandIns, *words: str) -> tuple[int, str, str]:
    argv = [*_ADMIN, "--config", str(host.config_path), "check-config", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_json_has_the_same_rows(host: StandIns) -> None:
    server_is_down(host)
    code, out, err = run_admin(host, "--json")
    document = json.loads(out)
    assert (code, err) == (2, "")
    assert set(document) == {"schema", "config", "host", "verdict", "counts", "rows"}
    assert (document["schema"], document["verdict"], document["counts"]["error"]) == (1, "error", 1)
    [row] = [row for row in document["rows"] if row["level"] == "error"]
    assert set(row) == {"check", "level", "what", "todo", "nodes"}
    assert (row["check"], row["nodes"]) == ("torque.server", []) and row["todo"]
    code, out, _ = run_admin(host)
    assert code == 2 and len([line for line in out.splitlines() if line.startswith("error ")]) == 1
    assert all(line == line.rstrip() for line in out.splitlines())


def test_errors_of_the_file_itself(host: StandIns) -> None:
    host.config_path.write_text(host.config_path.read_text() + "[no_such]\n")
    code, out, err = run_admin(host, "--json")
    document = json.loads(out)
    assert (code, err, document["verdict"]) == (2, "", "error")
    [row] = document["rows"]
    assert row["check"] == "configuration" and "no_such" in row["what"]


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_of_80_columns(host: StandIns, no_color: str) -> None:
    """Nothing is wider, but for words that stay whole; colors are left out where they are not wanted."""
    server_is_down(host)
    parent, child = pty.openpty()
    subprocess.run(["stty", "cols", "80", "rows", "24"], stdin=child, check=True)
    argv = [*_ADMIN, "--config", str(host.config_path), "check-config"]
    process = subprocess.Popen(
        argv, stdin=child, stdout=child, env={"NO_COLOR": no_color, "TERM": "xterm"}, cwd=_CHECKOUT
    )
    os.close(child)
    data = b""
    try:
        while block := os.read(parent, 4096):
            data += block
    except OSError:  # how a terminal ends
        pass
    os.close(parent)
    assert process.wait(30) == 2
    text = data.decode().replace("\r\n", "\n")
    assert ("\x1b[1;31merror" in text) == (not no_color) and bool(_COLOR.search(text)) == (not no_color)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    *lines, last = plain.splitlines()
    column = len(re.match(r"\w+ +[\w.]+ +", lines[0])[0])  # type: ignore[index]
    assert last.endswith(": 1 error")
    for line in lines:
        assert len(line) < 80 or len(line[column:].removeprefix("to do: ").split()) == 1, line
        assert line[column - 1] == " ", line
    assert sum(line[0] != " " for line in lines) == len({line.split()[1] for line in lines if line[0] != " "})


_CHECKOUT = Path(__file__).parents[2]
_COLOR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
