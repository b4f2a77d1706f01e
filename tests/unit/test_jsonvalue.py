"""JSON of strangers: what is refused, and that no shape gets past a typed accessor."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udi.jsonvalue import MAX_DEPTH, MAX_VALUES, JsonValue, read_json
from udiroot.errors import ImageInvalid, UdiError, UpstreamFailed

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting"),
        (b"\xff\xfe{\x00}\x00", "codec|decode"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        (b'{"a": 1, "a": 2}', "the key 'a' twice"),
        (b'[{"a": {"b": 1, "b": 1}}]', "the key 'b' twice"),
        (b'{"a": NaN}', "NaN"),
        (b"[-Infinity]", "Infinity"),
        (b"[1e999]", "too large"),
        (b"[9223372036854775808]", "more than 64 bits"),
        (b"[" + b"9" * 100_000 + b"]", "more than 64 bits"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b'["\\ud800\\u0041"]', "surrogate"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "values within values"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "values within values"),
    ],
)
def test_what_programs_read_differently_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_json(text)


def test_what_is_read() -> None:
    assert read_json(b'{"a": [1, -1, 1.5, true, null, "\\ud83d\\ude00\\\\ud800"]}') == {
        "a": [1, -1, 1.5, True, None, "\U0001f600\\ud800"]
    }
    assert read_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert read_json(b'["\xff", "\\ud800\\ud83d\\ude00"]', lenient=True) == ["\ufffd", "\ufffd\U0001f600"]


@given(ANY_JSON)
def test_any_value_is_read_or_refused(value: Any) -> None:
    with contextlib.suppress(ValueError):
        assert read_json(json.dumps(value).encode()) == value
    try:
        json.dumps(read_json(json.dumps(value), lenient=True)).encode()
        str(read_json(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"), lenient=True)).encode()
    except ValueError as error:
        assert not isinstance(error, UnicodeError)


@given(ANY_JSON, st.sampled_from([ImageInvalid, UpstreamFailed]))
def test_an_accessor_returns_its_type_or_raises_the_readers_error(value: Any, wrong: type[UdiError]) -> None:
    one = JsonValue(value, "value", wrong)
    for access, kind in (
        (one.text, str),
        (lambda: one.text(""), str),
        (one.integer, int),
        (one.items, list),
        (one.members, dict),
        (one.as_object, JsonValue),
        (lambda: one.get("a").get("b").text(""), str),
        (lambda: one.has("a"), bool),
    ):
        try:
            assert isinstance(access(), kind)
        except wrong as error:
            assert "value" in error.message


def test_errors_name_the_place() -> None:
    document = JsonValue.parse(b'{"layers": [{"size": "1"}]}', "manifest")
    with pytest.raises(ImageInvalid, match="size of item 1 of layers of manifest is not an integer of at least 0"):
        document.get("layers").items()[0].get("size").integer()
    with pytest.raises(ImageInvalid, match="config of manifest is not a string"):
        document.get("config").text()
    assert document.get("absent").get("more").is_null
    with pytest.raises(ImageInvalid):
        JsonValue(True, "size").integer()


@pytest.mark.parametrize("value", [b"null", b'""', b"[]", b"{}", b'{"a":1}', b"[1,1]"])
def test_a_document_of_more_values_than_any_image_has_is_refused(value: bytes) -> None:
    many = b"[" + b",".join([value] * (MAX_VALUES + 1)) + b"]"
    with pytest.raises(ImageInvalid, match="it has more than 200000 values"):
        JsonValue.parse(many, "x")
    few = b"[" + b",".join([value] * (MAX_VALUES // 3 - 1)) + b"]"
    assert len(JsonValue.parse(few, "x").items()) == MAX_VALUES // 3 - 1
    assert read_json(many), "a site's own lists may be long"
