"""The reader of `qstat -x` against lxml."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from torque_hooks.qstatxml import jobs_in
from udiroot.errors import UpstreamFailed

_NAMES = st.sampled_from(["Job_Id", "Variable_List", "resources_used", "mem", "Data", "x"])
_TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)


def _element(name: str, children: list[tuple[str, object]]) -> etree._Element:
    element = etree.Element(name)
    for text, child in children:
        if isinstance(child, etree._Element):
            child.tail = text
            element.append(child)
        else:
            element.text = (element.text or "") + text if not len(element) else element.text
    return element


_FIELDS = st.recursive(
    st.builds(lambda name, text: _element(name, [(text, None)]), _NAMES, _TEXTS),
    lambda inner: st.builds(_element, _NAMES, st.lists(st.tuples(_TEXTS, inner), max_size=3)),
    max_leaves=6,
)
_JOBS = st.builds(_element, st.just("Job"), st.lists(st.tuples(_TEXTS, _FIELDS), max_size=5))


@given(st.builds(_element, st.just("Data"), st.lists(st.tuples(_TEXTS, _JOBS), max_size=3)))
def test_fields_are_those_that_lxml_finds(document: etree._Element) -> None:
    text = etree.tostring(document)
    expected = []
    for job in etree.fromstring(text).iter("Job"):
        fields: dict[str, str] = {}
        for child in job:
            fields.setdefault(str(child.tag), "".join(map(str, child.itertext())))
        expected.append(fields)
    assert jobs_in(text) == expected


@given(st.binary(max_size=60))
def test_anything_else_is_torque_s_error(junk: bytes) -> None:
    for text in (junk, b"<Data><Job>" + junk):
        try:
            jobs_in(text)
        except UpstreamFailed as error:
            assert "qstat" in error.message and "\n" not in error.message


def test_no_entity_is_expanded() -> None:
    bomb = b'<!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><Data><Job><Job_Id>&b;</Job_Id></Job></Data>'
    with pytest.raises(UpstreamFailed, match="document type"):
        jobs_in(bomb)
