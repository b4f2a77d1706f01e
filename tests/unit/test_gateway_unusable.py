"""What no node or job could use of an image is found at its conversion: attributes, accounts, words, facts."""

from __future__ import annotations

import dataclasses
import json
import os
import tarfile
from pathlib import Path

import pytest

from gateway.image.convert import check_words, convert
from gateway.image.manifest import ImageConfig, SourceImage
from tests.gateway.archives import BASE, Entry, directory, file, symlink
from tests.gateway.support import Silent
from tests.unit.flattened import Result
from tests.unit.headers import (
    reason,
)
from udi.accounts import Account
from udi.environment import EnvironmentConfig
from udi.facts import Facts
from udi.gatewayconfig import GatewayConfig
from udi.rundata import run_data
from udiroot.errors import ImageInvalid

# The overlay's own marks


def test_marks_of_the_overlay_are_dropped() -> None:
    marks = {"trusted.overlay.opaque": b"y", "trusted.overlay.redirect": b"/etc", "user.overlay.metacopy": b""}
    kept = {"user.overlays": b"1", "trusted.other": b"2", "user.a": b"3"}
    image = Result(
        [[*BASE, directory("d", xattrs=marks | kept), file("d/f", xattrs=marks), Entry(b"d/gone", tarfile.CHRTYPE)]]
    )
    assert b"overlay." not in image.stream
    found = {key.removeprefix("SCHILY.xattr.") for key in image["d"].pax_headers if "xattr" in key}
    assert found == set(kept)
    assert "d/gone" not in image and "d/f" in image


# Extended attributes


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"user." + "n" * 251: b""}, "whose name is not valid"),
        ({"user.a": bytes(65537)}, "of 65537 bytes, the limit is 65536"),
        ({f"user.{number:050}": b"" for number in range(1200)}, "names have 67200 bytes, the limit is 65536"),
        ({"user.": b"v"}, "whose name is not valid"),
        ({"user.a\0b": b"v"}, "whose name is not valid"),
    ],
)
@pytest.mark.parametrize("entry", [file("x"), directory("x"), directory("")])
def test_attributes_that_no_node_could_read_are_found_at_conversion(
    attributes: dict[str, bytes], said: str, entry: Entry
) -> None:
    error = reason(lambda: Result([BASE, [dataclasses.replace(entry, xattrs=attributes)]]))
    assert said in error.message and error.owner == "user"


def test_attributes_up_to_the_kernel_s_limits_are_kept_and_those_that_are_dropped_have_none() -> None:
    kept = {"user." + "n" * 250: bytes(65536)}
    image = Result([[*BASE, file("x", xattrs=kept | {"security." + "n" * 300: b"", "trusted.overlay.": bytes(70000)})]])
    assert {key for key in image["x"].pax_headers if "xattr" in key} == {f"SCHILY.xattr.{key}" for key in kept}


# Accounts of the image


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("passwd", b"a:x:" + b"9" * 5000 + b":0::/:/bin/sh\n", "line 1: 99999999999999999999… is too large"),
        ("passwd", b"root:x:0:0::/:/bin/sh\na:x:1:4294967295::/:\n", "line 2: 4294967295 is too large"),
        ("group", b"\n\na:x:4294967296:\n", "line 3"),
        ("passwd", b"a:x:\0:0::/:\n", "not a text file"),
        ("group", bytes((1 << 20) + 1), "the limit is 1048576"),
        ("passwd", os.urandom(1 << 20) + b"\n" * 5, "the limit is 1048576"),
    ],
)
@pytest.mark.parametrize("how", ["plain", "gzip"])
def test_accounts_that_cannot_be_are_found_at_conversion(name: str, text: bytes, said: str, how: str) -> None:
    error = reason(lambda: Result([BASE, [file(f"etc/{name}", text)]], how))
    assert said in error.message and error.message.startswith(f"/etc/{name} of the image")
    assert error.owner == "user"


@pytest.mark.parametrize(
    "text",
    [b"", b"+::::::\n", b"# no account\n", b"a:x:0000000000000000000000000001:0::/:\n", b"toor:x:00:0::/:\n",
     b"a:x:4294967294:4294967294::/:\n", b":::::\n", b"a:x:-2:0::/:\n", b"\xff\xfe:x:1:1::/:", "é:x:1:1::/:".encode(),
     b"a:x:1\n" * 80_000],
)  # fmt: skip
def test_accounts_that_are_only_odd_are_the_node_s_to_pass_over(text: bytes) -> None:
    image = Result(
        [BASE, [file("etc/passwd", text), symlink("etc/group", "passwd")], [file("etc/x", b"after")]], "gzip"
    )
    assert image.data("etc/passwd") == text and image.data("etc/x") == b"after"


# Words of the configuration


@pytest.mark.parametrize("key", ["Env", "Entrypoint", "Cmd", "WorkingDir"])
@pytest.mark.parametrize("word", ["/a\0b", "/" + "x" * (1 << 17)])
def test_words_that_no_program_can_be_given_are_found_at_conversion(key: str, word: str) -> None:
    document = {"rootfs": {"diff_ids": []}, "config": {key: word if key == "WorkingDir" else [word]}}
    error = reason(lambda: check_words(ImageConfig.parse(json.dumps(document).encode())))
    assert error.message.startswith(f"image configuration: {key} ") and error.owner == "user"


@pytest.mark.parametrize("key", ["Env", "Entrypoint", "Cmd", "WorkingDir"])
@pytest.mark.parametrize("raw", [rb'"/a\ud800b"', b'"/a\xff"', rb'"/\udc00\ud800"', '"/ä\u2028 日本"'.encode()])
def test_words_that_are_kept_can_be_written_and_given(key: str, raw: bytes) -> None:
    """Half a surrogate pair would fail every job, when its environment is written."""
    value = raw if key == "WorkingDir" else b"[" + raw + b"]"
    text = b'{"rootfs": {"diff_ids": []}, "config": {"' + key.encode() + b'": ' + value + b"}}"
    try:
        config = ImageConfig.parse(text)
        check_words(config)
    except ImageInvalid:
        return
    for word in (*config.env, *config.entrypoint, *config.cmd, config.workdir):
        assert word.encode().decode() == word and "\0" not in word


def test_words_that_no_program_can_be_given_together_are_found_at_conversion() -> None:
    for words in (["x" * 100_000] * 21, [f"{number}" for number in range(120_000)], [""] * 180_000, ["ä"] * 150_000):
        document = {"rootfs": {"diff_ids": []}, "config": {"Env": words[:9], "Entrypoint": words[9:]}}
        config = ImageConfig.parse(json.dumps(document).encode())
        error = reason(lambda config=config: check_words(config))  # type: ignore[misc]
        assert "Env, Entrypoint and Cmd take" in error.message and error.owner == "user"


@pytest.mark.parametrize("key", ["Env", "Entrypoint", "Cmd"])
@pytest.mark.parametrize("word", ["", "a=ä", "=", "x" * 130_000])
def test_words_that_are_taken_a_job_can_be_started_with(key: str, word: str) -> None:
    count = 2_000_000 // (len(word.encode()) + 12)
    config = ImageConfig.parse(json.dumps({"rootfs": {"diff_ids": []}, "config": {key: [word] * count}}).encode())
    check_words(config)
    facts = Facts(
        id="0" * 64, format="ext4", size=0, sha256="", env=config.env, entrypoint=config.entrypoint, cmd=config.cmd
    )
    assert run_data(facts, EnvironmentConfig(), Account("anna", 1000, 1000, (1000,), "/home/anna", "/bin/sh"), "x:1")


def test_facts_that_no_job_could_read_are_found_at_conversion(tmp_path: Path) -> None:
    """Each byte that is not text takes six in the store."""
    text = b'{"rootfs": {"diff_ids": []}, "config": {"Labels": {"a": "' + b"\xff" * (3 << 20) + b'"}}}'
    error = reason(lambda: convert(SourceImage(text, ()), str(tmp_path / "out"), GatewayConfig(), Silent()))
    assert "in the store" in error.message and not list(tmp_path.iterdir())
