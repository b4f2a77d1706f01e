"""The site's configuration: what is wrong is named, with the nearest right name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from udi.config import load, parse
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
        ('[stor]\npath = "/x"', "unknown key stor", "store"),
        ('[store]\npath = "/x"\nacount = "u"', "unknown key store.acount", "store.account"),
        ("", "store.path is missing", ""),
        ("[store]\npath = 5", "store.path must be a text", ""),
        ('[store]\npath = "x"', "store.path must be a plain absolute path", ""),
        ('[store]\npath = "/x/"', "store.path must be a plain absolute path", ""),
        ("[store\n", "not valid TOML", ""),
        (GOOD + "[ssh]\nport = 22", "ssh.port must be from 1024", ""),
        (GOOD + '[ssh]\nfirst_address = "10.1"', "ssh.first_address must be an IPv4 address", ""),
        (GOOD + "[volumes]\nallowed = 5", "volumes.allowed must be a list", ""),
        (GOOD + "[volumes]\nallowed = [5]", "volumes.allowed[0] must be a text", ""),
        (GOOD + "[torque]\nmax_starts = true", "torque.max_starts must be a whole number", ""),
        (GOOD + '[gateway]\nformat = "cramfs"', "gateway.format", ""),
        (GOOD + '[alps]\nsources = ["magic"]', "alps.sources", ""),
        (GOOD + '[[node.filesystems]]\nsource = "/var"', "which is ours", ""),
        (GOOD + '[[node.steps]]\nkind = "run"\ntarget = "/x"', "node.steps[0].kind must be folder or link or bind", ""),
        (GOOD + '[[node.steps]]\nkind = "link"\ntarget = "/x"', "node.steps[0].source: a link", ""),
        (GOOD + '[[node.steps]]\nkind = "bind"\nsource = "x"\ntarget = "/x"', "must be a plain absolute path", ""),
        (GOOD + "[node]\ndeadline = 1000", "must each fit in the next", ""),
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
    with pytest.raises(ConfigError, match="No such file"):
        load(str(path))
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


def test_folders_are_compared_by_components() -> None:
    assert is_within("/scratch/x", "/scratch")
    assert is_within("/scratch", "/scratch")
    assert not is_within("/scratch2", "/scratch")
    assert is_within("/x", "/")
