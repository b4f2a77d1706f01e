"""The files of /etc in a root: ours byte by byte, and templates of the site's beside and instead of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from udi.accounts import Account
from udi.config import EtcConfig, SiteConfig, StoreConfig
from udi.etcfiles import node_files
from udi.nodes import numbered
from udiroot.errors import ConfigError

BOB = Account("bob", 1000, 4_000_000, (4_000_000, 0, 4_000_001), "/home/bob", "/bin/zsh")
ETC = EtcConfig(nameservers=("10.0.0.1", "fd00::1"), search=("example.org", "example.com"), hosts=("10.1.1.1 login",))


def files(etc: EtcConfig, *, user: Account = BOB, with_ssh: bool = False) -> dict[str, str]:
    addresses = {numbered(12): "10.128.0.13", numbered(13): "10.128.0.14"} if with_ssh else {}
    return dict(node_files(SiteConfig(store=StoreConfig(path="/store"), etc=etc), user, addresses))


def test_ours() -> None:
    made = files(ETC, with_ssh=True)
    assert sorted(made) == ["group", "hosts", "nsswitch.conf", "passwd", "resolv.conf", "ssh"]
    assert made["passwd"] == "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:4000000::/home/bob:/bin/zsh\n"
    assert made["group"] == "root:x:0:\ngroup4000000:x:4000000:\ngroup4000001:x:4000001:bob\n"
    assert made["resolv.conf"] == "search example.org example.com\nnameserver 10.0.0.1\nnameserver fd00::1\n"
    assert made["hosts"] == (
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
        "10.128.0.13 nid00012\n10.128.0.14 nid00013\n10.1.1.1 login\n"
    )
    assert made["ssh"].splitlines()[-1] == 'exec /opt/udi/ssh/ssh -p 1204 -i /opt/udi/etc/ssh_key "$@"'


def test_without_anything_of_the_site() -> None:
    made = files(EtcConfig())
    assert made["resolv.conf"] == "" and "nid" not in made["hosts"]


@pytest.mark.parametrize("change", [{"name": "b:b"}, {"home": "/home\nroot::0:0::/:"}, {"shell": "/bin/\0"}])
def test_an_entry_that_would_forge_another_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="cannot stand in a passwd or group line"):
        files(ETC, user=dataclasses.replace(BOB, **change))  # type: ignore[arg-type]


def test_templates_of_the_site(tmp_path: Path) -> None:
    (tmp_path / "passwd.j2").write_text("{{ user.name|field }}:x:{{ user.uid }}\nslurm:x:64030\n")
    (tmp_path / "nsswitch.conf.j2").write_text("{{ ours }}hosts: dns\n")
    (tmp_path / "motd.j2").write_text(
        "{% for gid, name in groups if gid %}\n{{ name }} {{ ssh.port if ssh }}\n{% endfor %}\n"
        "{{ etc.search|join(' ') }}"
    )
    (tmp_path / "hosts").write_text("no template\n")
    etc = dataclasses.replace(ETC, templates=str(tmp_path))
    made = files(etc, with_ssh=True)
    assert made["passwd"] == "bob:x:1000\nslurm:x:64030\n"
    assert made["motd"] == "group4000000 1204\ngroup4000001 1204\nexample.org example.com"
    ours = files(ETC, with_ssh=True)
    assert made["nsswitch.conf"] == ours["nsswitch.conf"] + "hosts: dns\n"
    assert all(made[name] == ours[name] for name in ours.keys() - {"passwd", "nsswitch.conf"})


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("motd.j2", "{{ nothing }}", "template motd.j2 cannot be rendered: 'nothing' is undefined"),
        ("motd.j2", "{% if %}", "template motd.j2 cannot be rendered"),
        ("motd.j2", "{{ 'a:b'|field }}", "template motd.j2 cannot be rendered: 'a:b' cannot stand"),
        ("a/motd.j2", "", "template a/motd.j2: not a valid name for a file of /etc"),
    ],
)
def test_wrong_templates(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=words):
        files(EtcConfig(templates=str(tmp_path)))


def test_templates_that_others_may_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match="must be owned by root and writable by no one else"):
        files(EtcConfig(templates=str(tmp_path)))
    with pytest.raises(ConfigError, match="/no/such: no such file or directory"):
        files(EtcConfig(templates="/no/such"))
