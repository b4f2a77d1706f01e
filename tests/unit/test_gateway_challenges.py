"""WWW-Authenticate by RFC 9110: any number of challenges, in any order and spelling."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sources.challenges import Challenge, challenges
from tests.effort import assert_linear

BEARER = Challenge("bearer", {"realm": "https://auth.test/token", "service": "a, b", "scope": "repository:x:pull"})


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (['Bearer realm="https://auth.test/token",service="a, b",scope="repository:x:pull"'], [BEARER]),
        (['BEARER  Realm = "https://auth.test/token" , SERVICE="a, b", scope="repository:x:pull"'], [BEARER]),
        (
            ['Basic realm="r", Bearer realm="https://auth.test/token", service="a, b", scope="repository:x:pull"'],
            [Challenge("basic", {"realm": "r"}), BEARER],
        ),
        (
            ['Bearer realm="https://auth.test/token",service="a, b",scope="repository:x:pull", Basic realm="r"'],
            [BEARER, Challenge("basic", {"realm": "r"})],
        ),
        (
            ['Basic realm="r"', 'Bearer realm="https://auth.test/token",service="a, b",scope="repository:x:pull"'],
            [Challenge("basic", {"realm": "r"}), BEARER],
        ),
        (
            ["Negotiate, NTLM TlRMTVNTUAAC==, Basic realm=r"],
            [Challenge("negotiate"), Challenge("ntlm"), Challenge("basic", {"realm": "r"})],
        ),
        (["Negotiate YWJj==,Basic"], [Challenge("negotiate"), Challenge("basic")]),
        ([r'Basic realm="a \"Bearer realm=x\" \\ b", charset="UTF-8"'],
         [Challenge("basic", {"realm": 'a "Bearer realm=x" \\ b', "charset": "UTF-8"})]),
        (["Bearer realm=https://auth.test/token?a=b,service=s"],
         [Challenge("bearer", {"realm": "https://auth.test/token?a=b", "service": "s"})]),
        (['Bearer realm="one", realm="two"'], [Challenge("bearer", {"realm": "one"})]),
        ([" , ,Basic realm=\"\", , "], [Challenge("basic", {"realm": ""})]),
        (['Digest realm="d", qop="auth, auth-int", nonce="x", Bearer realm="t"'],
         [Challenge("digest", {"realm": "d", "qop": "auth, auth-int", "nonce": "x"}),
          Challenge("bearer", {"realm": "t"})]),
        ([], []),
        ([""], []),
        (["\"Bearer realm=x\""], []),
    ],
)  # fmt: skip
def test_challenges(headers: list[str], found: list[Challenge]) -> None:
    assert challenges(headers) == found


@given(st.lists(st.text(alphabet='Bearer Basic,="\\ \t/=x', max_size=60), max_size=3))
def test_any_header_is_read(headers: list[str]) -> None:
    for challenge in challenges(headers):
        assert challenge.scheme == challenge.scheme.lower() != ""


@pytest.mark.parametrize("piece", ['x="', "x=y,", "x ", "x=,", '"', "\\", "=", ","])
def test_a_long_header_is_read_in_linear_time(piece: str) -> None:
    assert_linear(lambda size: challenges(["Bearer " + piece * (size // len(piece))]), 65536)


def test_more_challenges_than_any_server_has_are_not_read() -> None:
    """Each takes a hundred times the memory of the two bytes that it may be written in."""
    begun = time.process_time()
    assert len(challenges(["a," * 30_000] * 100)) == 32
    assert time.process_time() - begun < 2
