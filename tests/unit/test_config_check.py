"""`udi-admin check-config`: everything that is wrong, at once, each with its key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from admin.checks.access import hindrance
from admin.config_check import errors_of
from tests.gateway.signing import Key
from tests.unit.cray_standins import StandIns
from udi.accounts import account_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the configuration must be root's")

NOBODY = account_of("nobody")
_ADMIN = "from admin.cli import main; main()"


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    """A site whose files users can reach."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_mode & 0o055 != 0o055 and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    return StandIns(tmp_path)


def change(cray: StandIns, table: str, line: str) -> None:
    """Add a line to a table, in the place of one with the same key."""
    key = line.split(" = ")[0]
    begin, found, rest = cray.config_path.read_text().partition(f"[{table}]\n")
    own, bracket, others = rest.partition("\n[")
    kept = [each for each in own.split("\n") if not each.startswith(f"{key} = ")]
    body = "\n".join([line, *kept])
    text = f"{begin}{found or f'[{table}]' + chr(10)}{body}{bracket}{others}"
    cray.config_path.write_text(text)


def messages(cray: StandIns) -> list[str]:
    return [error.message.removeprefix(f"{cray.config_path}: ") for error in errors_of(str(cray.config_path))]


def test_nothing_is_wrong(cray: StandIns) -> None:
    assert messages(cray) == []


def test_all_errors_are_found_at_once(cray: StandIns) -> None:
    (cray.bin / "qhold").unlink()
    (cray.bin / "apstat").chmod(0o644)
    change(cray, "gateway", 'compression = "gzip:99"')
    change(cray, "gateway", 'publishers = ["nobody", "who"]')
    change(cray, "torque", "epilogue_deadline = 1")
    os.chown(cray.store, NOBODY.uid, NOBODY.gid)
    found = messages(cray)
    for words in (
        "torque.qhold",
        "alps.apstat",
        "gateway.compression",
        "no account 'who'",
        "torque.epilogue_deadline",
        "store.path",
    ):
        assert any(words in message for message in found), words
    assert len(found) == 6


@pytest.mark.parametrize("text", ["gzip:99", "gzip:0", "gzip:x", "brotli", "zstd:23", "", "lz4:3", "gzip:1:2"])
def test_compression(cray: StandIns, text: str) -> None:
    change(cray, "gateway", f'compression = "{text}"')
    [message] = messages(cray)
    assert message.startswith("gateway.compression: invalid compression")
    change(cray, "gateway", 'format = "ext4"')
    assert messages(cray) == []


@pytest.mark.parametrize(
    ("table", "line", "message"),
    [
        ("alps", "sources = []", "alps.sources must not be empty"),
        ("alps", 'sources = ["apstat", "apstat2"]', "alps.sources must be apstat or basil"),
        ("alps", 'basil_protocol = "9.9"', "alps.basil_protocol must be 1.0 or"),
        ("alps", 'basil_protocol = ""', "alps.basil_protocol must be 1.0 or"),
        ("node", "python = []", "node.python must not be empty"),
    ],
)
def test_values_that_no_program_can_use(cray: StandIns, table: str, line: str, message: str) -> None:
    change(cray, table, line)
    [found] = messages(cray)
    assert found.startswith(message)


@pytest.mark.parametrize(
    ("config", "is_wrong"),
    [
        ("$prologalarm 30\n", True),
        ("$loglevel 3\n$prologalarm   111  \n", True),
        ("$prologalarm 300\n$prologalarm 20\n", True),
        ("$prologalarm 112\n", False),
        ("#$prologalarm 30\n$logevent 255\n", False),
        ("", False),
    ],
)
def test_torques_own_limit_must_not_kill_a_hook(cray: StandIns, config: str, is_wrong: bool) -> None:
    (cray.directory / "mom_priv").mkdir()
    (cray.directory / "mom_priv/config").write_text(config)
    found = messages(cray)
    assert len(found) == is_wrong and all("$prologalarm" in message for message in found)


def test_without_a_setting_torques_default_counts(cray: StandIns) -> None:
    change(cray, "torque", "prologue_deadline = 250")
    change(cray, "torque", "epilogue_deadline = 250")
    assert messages(cray) == []  # no MOM on this host
    (cray.directory / "mom_priv").mkdir()
    [message] = messages(cray)
    assert "$prologalarm 300" in message and "torque.prologue_deadline needs 350" in message


@pytest.mark.parametrize("name", ["", "images", "refs", "plans"])
def test_the_store_is_the_accounts(cray: StandIns, name: str) -> None:
    path = cray.store / name
    os.chown(path, NOBODY.uid, 0)
    [message] = messages(cray)
    assert message == f"store.path: {path} is owned by uid {NOBODY.uid}, must be owned by store.account, uid 0"
    os.chown(path, 0, 0)
    path.chmod(0o777)
    [message] = messages(cray)
    assert message == f"store.path: {path} of mode 0777 may be written by others"


def test_a_store_that_does_not_exist(cray: StandIns) -> None:
    cray.store.rename(cray.directory / "elsewhere")
    assert messages(cray) == [f"store.path: {cray.store} is not a directory on this host"]
    cray.store.write_text("")
    assert messages(cray) == [f"store.path: {cray.store} is not a directory on this host"]


def test_an_address_needs_munge(cray: StandIns) -> None:
    change(cray, "gateway", f'munge = "{cray.directory}/munge.socket"')
    assert messages(cray) == []
    change(cray, "gateway", 'address = "login1:7001"')
    [message] = messages(cray)
    assert message.startswith("gateway.address needs MUNGE: ")


@pytest.mark.parametrize("account", ["0", "nobody"])
def test_an_interpreter_that_users_cannot_reach(cray: StandIns, monkeypatch: pytest.MonkeyPatch, account: str) -> None:
    closed = cray.directory / "root/venv/bin"
    closed.mkdir(parents=True)
    (closed / "python3").symlink_to(sys.executable)
    (cray.directory / "root").chmod(0o700)
    monkeypatch.setattr("sys.executable", str(closed / "python3"))
    change(cray, "store", f'account = "{account}"')
    found = [message for message in messages(cray) if not message.startswith("store.path")]
    assert found == [
        f"the interpreter of shifter-xc, {closed}/python3, cannot be used by users: {cray.directory}/root has mode 0700"
    ]


def test_a_configuration_that_users_cannot_read(cray: StandIns) -> None:
    cray.config_path.chmod(0o600)
    [message] = messages(cray)
    assert "the configuration" in message and "has mode 0600" in message


def test_the_program_prints_all_and_fails(cray: StandIns) -> None:
    (cray.bin / "qhold").unlink()
    (cray.bin / "qstat").unlink()
    done = subprocess.run(
        [sys.executable, "-c", _ADMIN, "--config", str(cray.config_path), "check-config"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stderr == ""
    lines = done.stdout.splitlines()
    errors = [line.split()[1:3] for line in lines if line.startswith("error ")]
    assert errors == [["programs", "torque.qstat:"], ["programs", "torque.qhold:"]]
    assert lines[-1].startswith(f"{cray.config_path} on ") and ": 2 errors" in lines[-1]


# Who can reach a file


@pytest.mark.parametrize("text", ["nonsense", "[store\n"])
def test_what_is_not_toml_is_one_error(cray: StandIns, text: str) -> None:
    cray.config_path.write_text(text)
    assert len(messages(cray)) == 1


def test_access_is_that_of_the_kernel(tmp_path: Path) -> None:
    """Whoever is refused by the kernel is refused here, and nobody else."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_mode & 0o011 != 0o011:
            directory.chmod(directory.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    tree = tmp_path / "a/b"
    tree.mkdir(parents=True)
    program = tree / "program"
    program.write_bytes(Path("/bin/true").read_bytes())
    (tmp_path / "relative").symlink_to("a/b/../b/program")
    (tmp_path / "absolute").symlink_to(program)
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    paths = [program, *(tmp_path / name for name in ("relative", "absolute", "dangling", "loop", "missing"))]
    modes = (0o755, 0o700, 0o750, 0o711, 0o644, 0o550)
    for owner in (0, NOBODY.uid):
        for mode in modes:
            for target in (program, tree):
                program.chmod(0o755)
                tree.chmod(0o755)
                os.chown(target, owner, owner)
                target.chmod(mode)
                for path in paths:
                    ran = _runs(path)
                    assert (hindrance(str(path), NOBODY, os.X_OK) == "") == ran, (path, oct(mode), owner)
                os.chown(target, 0, 0)


def _runs(path: Path) -> bool:
    try:
        done = subprocess.run(
            [str(path)], user=NOBODY.uid, group=NOBODY.gid, extra_groups=[], cwd="/", capture_output=True, check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def test_keys_of_signatures(cray: StandIns) -> None:
    ring = cray.directory / "ring"
    key = Key(cray.directory / "keys", "site")
    ring.mkdir(mode=0o755)
    (ring / "site.pem").write_bytes(key.public.read_bytes())
    with cray.config_path.open("a") as config:
        config.write(f'[[signatures.rules]]\nimages = ["docker.io/*"]\nkeys = ["{ring}"]\n')
    assert messages(cray) == []
    change(cray, "store", 'account = "nobody"')
    os.chown(cray.store, NOBODY.uid, NOBODY.gid)
    ring.chmod(0o700)
    found = messages(cray)
    assert f"signatures.rules[0].keys: {ring} cannot be read by store.account nobody: {ring} has mode 0700" in found
    change(cray, "store", 'account = "0"')
    os.chown(cray.store, 0, 0)
    ring.chmod(0o755)
    (ring / "private.pem").write_bytes(key.private.read_bytes())
    [message] = messages(cray)
    assert message.startswith("signatures.rules[0].keys: ") and "private key, not a public key" in message
    (ring / "private.pem").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    [message] = messages(cray)
    assert "private.pem: not a valid public key" in message and "\n" not in message
