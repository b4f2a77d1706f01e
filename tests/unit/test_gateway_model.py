"""The tree against a model so simple that it is plainly the specification: whiteouts first, then entries."""

from __future__ import annotations

import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateway.archives import BASE, Entry, directory, file, opaque, whiteout
from tests.unit.flattened import Result

Model = dict[tuple[str, ...], tuple[str, int, bytes]]
"""Paths to kind, mode and content."""

PARTS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3)


def apply(model: Model, layer: list[Entry]) -> None:
    """One layer, by the letter: markers apply to lower layers, wherever in the layer they stand."""
    for entry in layer:
        *parent, name = entry.name.decode().split("/")
        if name == ".wh..wh..opq":
            _remove(model, tuple(parent), itself=False)
        elif name.startswith(".wh."):
            _remove(model, (*parent, name[4:]), itself=True)
    for entry in layer:
        path = tuple(entry.name.decode().split("/"))
        if path[-1].startswith(".wh."):
            continue
        for length in range(1, len(path)):
            if model.get(path[:length], ("",))[0] != "directory":
                _remove(model, path[:length], itself=True)
                model[path[:length]] = ("directory", 0o755, b"")
        is_folder = entry.kind == tarfile.DIRTYPE
        if not (is_folder and model.get(path, ("",))[0] == "directory"):
            _remove(model, path, itself=True)
        model[path] = ("directory" if is_folder else "file", entry.mode, entry.data)


def _remove(model: Model, path: tuple[str, ...], *, itself: bool) -> None:
    if not itself and model.get(path, ("",))[0] != "directory":
        return
    for other in list(model):
        if other[: len(path)] == path and (itself or other != path):
            del model[other]


def entries() -> st.SearchStrategy[Entry]:
    path = PARTS.map("/".join)
    return st.one_of(
        st.builds(lambda name, data: file(name, data, mode=0o600), path, st.binary(min_size=1, max_size=2)),
        st.builds(directory, path, st.sampled_from([0o700, 0o711])),
        path.map(whiteout),
        path.map(opaque),
    )


@settings(max_examples=400)
@given(st.lists(st.lists(entries(), max_size=7), max_size=4))
def test_any_order_of_any_entries_equals_the_model(layers: list[list[Entry]]) -> None:
    model: Model = {("bin",): ("directory", 0o755, b""), ("bin", "sh"): ("file", 0o755, b"#!shell")}
    for layer in layers:
        apply(model, layer)
    result = Result([BASE, *layers])
    found: Model = {}
    for name, member in result.members.items():
        if name != b".":
            kind = "directory" if member.isdir() else "file"
            content = b"" if member.isdir() else result.data(name)
            found[tuple(name.decode().rstrip("/").split("/"))] = (kind, member.mode, content)
    assert found == model
