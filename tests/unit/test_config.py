"""The site's configuration: what is wrong is named, with the nearest right name."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import tomllib
import typing
from pathlib import Path

import pytest

from admin.seams.machines import machine_of
from admin.seams.tables import all_tables
from admin.sitefiles.example import example
from alps.settings import AlpsConfig
from tests.gateway.service import directory_for_all, run_as
from torque_hooks.settings import TorqueConfig
from udi.config import SiteConfig, Table, errors_in, load, parse, shared_keys
from udi.sitemodules import ModuleConfig
from udiroot.errors import ConfigError
from udiroot.rules import is_within

GOOD = '[store]\npath = "/scratch/udi"\n'


def test_defaults() -> None:
    site = parse(GOOD, "udi.toml")
    assert site.node_store_path == "/scratch/udi"
    assert site.node.root == "/var/udi"
    assert site.gateway.compression == "gzip:1"


def test_lists_of_tables() -> None:
    site = parse(GOOD + '[[node.filesystems]]\nsource = "/scratch"\n[volumes]\nallowed = ["/scratch"]\n', "udi.toml")
    assert site.node.filesystems[0].source == "/scratch"
    assert site.volumes.allowed == ("/scratch",)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('[store]\npath = "/x"\nacount = "u"', "unknown key store.acount", "store.account"),
        ("", "store.path is missing", ""),
        ("[store]\npath = 5", "store.path must be a string", ""),
        ('[store]\npath = "x"', "store.path must be a plain absolute path", ""),
        ('[store]\npath = "/x/"', "store.path must be a plain absolute path", ""),
        ("[store\n", "not valid TOML", ""),
        (GOOD + "[ssh]\nport = " + "1" * 5000, "not valid TOML", ""),
        (GOOD + "[ssh]\nport = 22", "ssh.port must be from 1024", ""),
        (GOOD + '[ssh]\nfirst_address = "10.1"', "ssh.first_address must be an IPv4 address", ""),
        (GOOD + "[volumes]\nallowed = 5", "volumes.allowed must be a list", ""),
        (GOOD + "[volumes]\nallowed = [5]", "volumes.allowed[0] must be a string", ""),
        (GOOD + '[gateway]\nformat = "cramfs"', "gateway.format", ""),
        (GOOD + '[[node.filesystems]]\nsource = "/var"', "which shifter-xc manages", ""),
        (
            GOOD + '[[node.steps]]\nkind = "run"\ntarget = "/x"',
            "node.steps[0].kind must be directory or link or bind",
            "",
        ),
        (GOOD + '[[node.steps]]\nkind = "link"\ntarget = "/x"', "node.steps[0].source: a link", ""),
        (GOOD + '[[node.steps]]\nkind = "bind"\nsource = "x"\ntarget = "/x"', "must be a plain absolute path", ""),
        (GOOD + "[node]\ndeadline = 0", "node.deadline must be at least 1 second, not 0", ""),
        (GOOD + '[[systems]]\nname = "a;b"\npath = "/x"', "systems[0].name must not be 'a;b'", ""),
        (GOOD + '[[systems]]\nname = "a"\npath = "/x"\n' * 2, "two systems are called a", ""),
        (GOOD + '[gateway]\naddress = "host"', "gateway.address must be host:port", ""),
        (GOOD + '[[registry.hosts]]\nname = "a b"', "registry.hosts[0].name must be HOST", ""),
        (GOOD + "[registry]\nsilence = 0", "registry.silence must be at least 1", ""),
        (GOOD + '[node]\nroot = "/var/udi\\u0007"', "control character", ""),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "udi.toml")
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_only_root_s_own_file_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "udi.toml"
    with pytest.raises(ConfigError, match="no such file"):
        load(str(path))
    os.mkfifo(tmp_path / "fifo")
    for other in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(ConfigError, match="not a regular file"):
            load(str(other))
    path.write_text(GOOD)
    path.chmod(0o664)
    with pytest.raises(ConfigError, match=r"mode 0664 lets others write it|owned by uid"):
        load(str(path))
    path.chmod(0o644)
    if os.geteuid() == 0:
        assert load(str(path)).store.path == "/scratch/udi"
        os.chown(path, 1001, 0)
        with pytest.raises(ConfigError, match="owned by uid 1001"):
            load(str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of two accounts")
@pytest.mark.parametrize(
    ("owner", "mode", "said"),
    [
        (0, 0o644, "/scratch/udi"),
        (0, 0o666, "mode 0666 lets others write it"),
        (1000, 0o644, "/scratch/udi"),
    ],
)
def test_in_a_user_namespace_a_client_still_reads_it(owner: int, mode: int, said: str) -> None:
    """Root's file is nobody's there, and one of the caller's own is root's: it gives no right that the caller lacks."""
    code = "import sys\nfrom udi.config import load\nprint(load(sys.argv[1]).store.path)"
    program = f"try:\n    exec({code!r})\nexcept Exception as e:\n    print(e.message, e.hint)"
    with directory_for_all("udi-config-") as directory:
        path = directory / "udi.toml"
        path.write_text(GOOD)
        path.chmod(mode)
        os.chown(path, owner, 0)
        words = ["unshare", "--user", "--map-root-user", sys.executable, "-c", program, str(path)]
        done = run_as(1000, words, cwd=Path(__file__).parents[2])
        outside = run_as(1000, words[3:], cwd=Path(__file__).parents[2])
    assert said in done.stdout, done.stderr
    assert ("owned by uid 1000, must be owned by root" in outside.stdout) is (owner == 1000)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (TorqueConfig, "[torque]\nmax_starts = true", "torque.max_starts must be an integer"),
        (TorqueConfig, "[torque]\nmax_start = 1", "unknown key torque.max_start"),
        (TorqueConfig, "[torque]\nprologue_deadline = 0", "torque.prologue_deadline must be at least 1 second, not 0"),
        (AlpsConfig, '[alps]\nsources = ["magic"]', "alps.sources must be apstat or basil, not 'magic'"),
        (AlpsConfig, "alps = 5", "alps must be a table"),
    ],
)
def test_a_table_is_checked_by_those_who_ask_for_it(kind: type[Table], text: str, message: str) -> None:
    """Others pass over it: a gateway host need not know what a hook's table may hold."""
    site = parse(f"{text}\n{GOOD}" if "=" in text.split("\n")[0] else f"{GOOD}{text}\n", "udi.toml")
    assert site.node.root == "/var/udi"
    with pytest.raises(ConfigError) as caught:
        site.table(kind)
    assert message in caught.value.message


def test_tables_survive_a_replaced_site() -> None:
    site = parse(GOOD + "[torque]\nmax_starts = 7", "udi.toml")
    assert dataclasses.replace(site, machine="alps").table(TorqueConfig).max_starts == 7
    assert parse(GOOD, "udi.toml").table(TorqueConfig).max_starts == 3


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('[stor]\npath = "/x"', "unknown key stor", "did you mean store?"),
        ("[torqe]\nmax_starts = 3", "unknown key torqe", "did you mean torque?"),
        ("[clusters]\nwindows = 3", "unknown key clusters.windows", "clusters.window"),
    ],
)
def test_check_config_refuses_a_table_that_nobody_owns(text: str, message: str, hint: str) -> None:
    parse(GOOD + text if "[stor]" not in text else GOOD, "udi.toml")
    [error] = errors_in(GOOD + text, "udi.toml", all_tables())
    assert message in error.message and hint in error.hint


def test_all_errors_of_a_file_are_found_at_once() -> None:
    text = """
machine = 5
[store]
path = "x"
acount = "udi"
[gateway]
format = "cramfs"
workers = 0
[[node.filesystems]]
target = "/x"
[[node.filesystems]]
source = 3
[node_]
[alps]
sources = []
basil_protocol = "9.9"
reservation_wait = -1
[torque]
max_starts = true
[torqe]
"""
    found = [error.message.removeprefix("udi.toml: ") for error in errors_in(text, "udi.toml", all_tables())]
    assert sorted(found) == sorted(_ALL_ERRORS)


_ALL_ERRORS = (
    "machine must be a string, not 5",
    "unknown key store.acount",
    "store.path must be a plain absolute path, not 'x'",
    "gateway.format must be squashfs or ext4 or directory, not 'cramfs'",
    "gateway.workers must be at least 1, not 0",
    "node.filesystems[0].source is missing",
    "node.filesystems[1].source must be a string, not 3",
    "unknown key node_",
    "alps.sources must not be empty",
    "alps.basil_protocol must be 1.0 or 1.1 or 1.2 or 1.3 or 1.4 or 1.5 or 1.6 or 1.7, not '9.9'",
    "alps.reservation_wait must be at least 0, not -1",
    "torque.max_starts must be an integer, not True",
    "unknown key torqe",
)


@pytest.mark.parametrize("key", ["[node]\npython = []", "[alps]\nsources = []"])
def test_lists_that_must_not_be_empty(key: str) -> None:
    [error] = errors_in(GOOD + key, "udi.toml", all_tables())
    assert "must not be empty" in error.message


def test_the_machine_is_one_that_exists() -> None:
    with pytest.raises(ConfigError, match="machine must be alps or clusters, not 'vax'"):
        machine_of(parse('machine = "vax"\n' + GOOD, "udi.toml"))
    assert machine_of(parse(GOOD, "udi.toml")).name == "alps"


def test_the_example_is_valid_and_names_every_key() -> None:
    text = example()
    parse(text, "udi.toml")
    uncommented = re.sub(r"^# (\w+ = |\[)", r"\1", text, flags=re.MULTILINE)
    document = tomllib.loads(re.sub(r"^\[\[.*\n(.+\n)*", "", uncommented, flags=re.MULTILINE))
    kinds = {kind.NAME: kind for kind in all_tables()}
    hints = typing.get_type_hints(SiteConfig)
    for name, table in document.items():
        if name == "modules":
            assert {f.name for f in dataclasses.fields(ModuleConfig)} <= set(table["NAME"])
        elif isinstance(table, dict):
            kind: typing.Any = kinds.get(name) or hints[name]
            plain = {
                f.name for f in dataclasses.fields(kind) if f.name not in ("hosts", "rules", "steps", "filesystems")
            }
            assert plain <= set(table), name
    assert {*kinds, *shared_keys()} - {"systems"} <= set(document)


def test_the_example_in_docs_is_what_the_command_prints() -> None:
    path = Path(__file__).parents[2] / "docs/udi.toml.example"
    assert path.read_text() == example(), "udi-admin example-config >docs/udi.toml.example"


def test_directories_are_compared_by_components() -> None:
    assert is_within("/scratch/x", "/scratch")
    assert is_within("/scratch", "/scratch")
    assert not is_within("/scratch2", "/scratch")
    assert is_within("/x", "/")


def test_by_default_a_host_can_be_gateway_and_node() -> None:
    """systemd gives the socket's directory to the store's account; root's own directories on a node are others."""
    site = parse('[store]\npath = "/lus/udi"\n', "udi.toml")
    gateways, nodes = (os.path.dirname(site.gateway.socket), site.node.run.replace("/var/run/", "/run/"))
    assert gateways.startswith("/run/") and gateways != nodes
    assert not gateways.startswith(f"{nodes}/") and not nodes.startswith(f"{gateways}/")
