"""Torque's own texts that a user can write: the pin in a script, job ids, the variables that request an image."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torque_hooks.jobid import job_id
from torque_hooks.pin import find_pin, with_pin
from torque_hooks.variables import is_requested, requested
from udi import config
from udi.accounts import Account
from udi.reference import ImageReference
from udi.registries import RegistryConfig
from udi.request import Pin, Volume
from udi.waiting import waits
from udiroot.errors import UsageError

REGISTRIES = RegistryConfig()
PIN = Pin(ImageReference.parse("team/app:1"), "ab" * 32)
ALICE = Account("alice", 1001, 1001, (1001,), "/home/alice", "/bin/bash")
SITE = config.parse('[store]\npath = "/s"\n[volumes]\nallowed = ["/scratch"]\n', "udi.toml")


@given(st.binary())
def test_a_pin_survives_any_script_and_the_script_survives_the_pin(script: bytes) -> None:
    pinned = with_pin(script, PIN)
    assert find_pin(REGISTRIES, pinned) == PIN
    assert with_pin(pinned, PIN) == pinned
    if find_pin(REGISTRIES, script) is None and not script.startswith(b"#!"):
        assert pinned.endswith(script)
    if script.startswith(b"#!"):
        assert pinned.startswith(b"#!")


@pytest.mark.parametrize("line", ["#UDI pinned ", "#UDI pinned x", "#UDI pinned x y", f"#UDI pinned $(x) {'ab' * 32}"])
def test_bad_pins_are_none(line: str) -> None:
    assert find_pin(REGISTRIES, line.encode()) is None


def test_a_pin_counts_in_any_spelling_of_its_image() -> None:
    pin = find_pin(REGISTRIES, f"#UDI pinned docker.io/library/debian {'ab' * 32}\n".encode())
    assert pin == Pin(ImageReference.parse("debian:latest"), "ab" * 32)
    assert requested(SITE, "1.sdb", ALICE, {"UDI": "library/debian"}, pin).pin == pin


@pytest.mark.parametrize("text", ["123.sdb", "1", "12[3].sdb", "64[].vm"])
def test_job_ids(text: str) -> None:
    assert job_id(text) == text


@pytest.mark.parametrize("text", ["", "x", "1;2", "../1", "1.sdb/..", "1 2", "1.$(x)", "1\n", "12_3"])
def test_not_job_ids(text: str) -> None:
    with pytest.raises(UsageError):
        job_id(text)
    with pytest.raises(UsageError):
        requested(SITE, text, ALICE, {"UDI": "debian"})


def test_variables() -> None:
    made = requested(SITE, "1.sdb", ALICE, {"UDI": " debian:12 ", "UDI_VOLUMES": "/scratch/a:/b"})
    assert (str(made.reference), made.volumes) == ("debian:12", (Volume("/scratch/a", "/b"),))


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("docker:debian:12", "debian:12"),
        ("docker:debian", "debian:latest"),
        (" docker:debian ", "debian:latest"),
        ("docker:team/app", "team/app:latest"),
        ("docker:team/app:v1", "team/app:v1"),
        ("docker:registry.example.org:5000/team/app:v1", "registry.example.org:5000/team/app:v1"),
        ("docker://debian:12", "debian:12"),
        (f"docker:debian@sha256:{'ab' * 32}", f"debian@sha256:{'ab' * 32}"),
        ("docker:24:1", "24:1"),
        ("docker:24", "docker:24"),
        ("docker:dind", "docker:dind"),
        ("docker:docker:24", "docker:24"),
        ("docker:5000/team/app", "docker:5000/team/app:latest"),
        ("docker", "docker:latest"),
    ],
)
def test_a_reference_as_other_sites_teach_it(text: str, reference: str) -> None:
    assert str(requested(SITE, "1.sdb", ALICE, {"UDI": text}).reference) == reference


@pytest.mark.parametrize("text", ["docker:", "//debian", "Docker:debian:12", "docker:/debian"])
def test_what_only_looks_like_it(text: str) -> None:
    with pytest.raises(UsageError):
        requested(SITE, "1.sdb", ALICE, {"UDI": text})


@given(st.sampled_from(["docker:24", "docker:latest", "docker:x/y", "a:1", "docker:debian:12"]))
def test_the_stores_spelling_means_itself(text: str) -> None:
    reference = ImageReference.parse(text)
    assert ImageReference.parse(str(reference)) == reference


def test_an_empty_variable_is_no_request() -> None:
    assert not is_requested({})
    assert not is_requested({"UDI": " "})
    assert is_requested({"UDI": "x"})


def test_qsub_waits_unless_told_otherwise() -> None:
    assert waits("") and waits("yes")
    assert not any(waits(word) for word in ("no", "NO", "0", "false"))
