"""The plain reader of TOML: for any text it finds what the library finds, types and order included, or leaves it to
that; and it reads the files that sites have, so that their hooks do not load the library."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slurmsim import site as slurm_site
from slurmsim.cluster import Cluster
from tests.effort import assert_linear
from tests.unit.cray_standins import StandIns
from udi.plaintoml import plain, read_toml
from xcsim import site as xc_site
from xcsim.access import LoginAccess

DOCS = Path(__file__).parents[2] / "docs"
READ = [
    "",
    "\n",
    " \t\n\n",
    "# comment",
    "# ümläute and\ttabs #",
    "a = 1",
    "a=1#comment",
    "  a\t=\t1 \t # comment\r\nb = 2\r\n",
    "a = 0\nb = 10\nc = 999999999999999999",
    "a = true\nb = false",
    "a = ''\nb = \"\"\nc = '\\n \"'\nd = \"'#[]{}=,.\"",
    'a = "Zürich 東京"',
    "a = []\nb = [ ]\nc = [1,]\nd = [ 1 , 2 ]\ne = ['x', \"y\", true]\nf = [[1], [], [[2]]]",
    "a = [\n  1, # one\n\n  # two\n  2\n\t] # end\nb = 1",
    'a = [ # none\n]\nb = [\r\n"x",\r\n]\r\n',
    "a = {}\nb = { }\nc = {x = 1}\nd = { x = 1 , \"/y\" = ['z'], 'z' = {} }",
    'a = [{"source" = "/scratch"}, {"source" = "/home", read_only = true}]',
    '"a b" = 1\n\'c.d\' = 2\n"" = 3\n"ü" = 4',
    "- = 1\n_ = 2\n-1 = 3\n1 = 4\n2.5 = 5",
    "a.b = 1\na.c = 2\na . d.e = 3\na.d.f = 4",
    "[a]\n[b]\nx = 1\n[ c . d ]\n[c.e] # comment\n['f.g'.\"h\"]",
    "[a.b]\n[a.c]\n[a.b.d]",
    "[a]\nx = 1\n[a.b]\nx.y = 2\nx.z = 3\n[a.c]\nx.y = 4",
    "[[a]]\n[[a]]\nx = 1\n[b]\n[[a]]",
    "[[a]]\nx.y = 1\n[a.b]\n[[a.c]]\n[[a.c]]\n[a.c.d]\n[[a]]\nx.y = 2\n[a.b]\n[[a.c]]",
    "[[ a . b ]]\n[[a.b]]",
    "[a]\n[[a.b]]\nx = 1\n[[a.b]]\nx = [2]\n[[a.b]]\nx = [3]",
    'a = """x"""\nb = """"""\nc = """\nx\n  y\n"""\nd = """\\\n  x:\\\n\n\t y""" # comment',
]
"""What it reads."""
LEFT = [
    "a = 1.5", "a = 1e5", "a = 1_000", "a = 0x10", "a = 0b1", "a = +1", "a = -1", "a = -0", "a = inf", "a = nan",
    "a = 1979-05-27", "a = 1979-05-27T07:32:00Z", "a = 1979-05-27 07:32:00", "a = 10:32:00", "a = [10:32:00]",
    "a = 1000000000000000000",
    'a = "\\n"', 'a = "\\""', 'a = """x\\n"""', 'a = """x\\  \n  y"""', 'a = """x\\\\\n"""', 'a = """x""""',
    "a = '''x'''", "a = ''''x'''",
    "[a.b]\n[a]", "[a.b]\n[[c]]\n[a]\nx = 1", "a.b.c = 1\n[a.b.d]", "[a]\nb.c = 1\n[a.d]\n[a.b.d]",
    "a = {b.c = 1}", "a = [[[[[[[[[[1]]]]]]]]]]",
    "# no-break\u00a0space", 'a = "\u2028"', "# tag \U000e0001",
]  # fmt: skip
"""What TOML has, and the library reads."""
REFUSED = [
    "a", "a =", "a = #", "= 1", "a b = 1", "a. = 1", ".a = 1", "a..b = 1", "ü = 1", "a = ü", "a = \u0661", "a = b",
    "a = 01", "a = 00", "a = 1 2", "a = 1 b", "a = 1,", "a = 1]", "a = truefalse", "a = True", "a = true1", "a = 1a",
    'a = "x" y', 'a = "x""y"', 'a = "x', "a = 'x", "a = \"x\ny\"", "a = 'x\ny'", "a = \"\"\"x", 'a = """x"',
    '"""a""" = 1', "'''a''' = 1", "\"a\n\" = 1", "'a = 1",
    "a = 1\na = 1", "a.b = 1\na = 1", "a = 1\na.b = 1", "a.b = 1\na.b = 1", "a.b = 1\na.b.c = 1", "a = []\na.b = 1",
    "a = {}\na.b = 1", '"a" = 1\na = 1', "a = {x = 1, x = 1}", "a = {x = {}}\na.x.y = 1",
    "[a]\n[a]", "[a]\nb = 1\n[a.b]", "[a]\nb = 1\n[a.b.c]", "a = 1\n[a]", "a = 1\n[[a]]", "a = {}\n[a]",
    "a = {}\n[a.b]", "a = []\n[[a]]", "a = []\n[a]", "a = [{}]\n[[a]]", "a = [{}]\n[a.b]", "a = [{}]\n[[a.b]]",
    "a.b = 1\n[a.b]", "a.b = 1\n[a]", "a.b = 1\n[[a]]", "[a.b]\n[[a]]", "[[a]]\n[a]", "[[a.b]]\n[[a]]", "[a]\n[[a]]",
    "[a.b]\n[a]\nb.c = 1", "[a]\n['a']",
    "[[a]]\nx = 1\n[a.x]", "[[a]]\nx.y = 1\n[a.x]", "[[a]]\n[a.b]\n[a.b]", "[a]\nb.c = 1\n[a.b]",
    "[a]\nb.c = 1\n[[a.b]]",
    "[]", "[a", "[a\n]", "a]", "[a]]", "[[a]", "[[a] ]", "[ [a]]", "[[a]]]", "[a.]", "[.a]", "[a] b", "[a] b = 1",
    "[a b]", "[a#]", "[[]]", "[ü]", "[a = 1]",
    "a = [", "a = [1", "a = [1 2]", "a = [,]", "a = [1,,2]", "a = [1] 2", "a = [1]]", "a = [\n1\n\n", "a = [a]",
    "a = [[a]]",
    "a = {", "a = {x}", "a = {x = 1 y = 2}", "a = {,}", "a = {x = }", "a = {x = 1", "a = {x = 1}}",
    "a = 1\rb = 2", "a = 1\r", "# \r comment", "# \0", "a = 1\0", "\0", "# \x7f", "a = '\x07'", "a = \"\x00\"",
    "\ufeffa = 1", "a\u00a0= 1", "a = 1\u3000", "a = 1\x0b", "a = 1\x0c", "\u2028a = 1", "a = 1\x85b = 2",
]  # fmt: skip
"""What is wrong in every version of TOML."""


def _truth(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _agrees(text: str) -> bool:
    """Whether it read the text, and so as the library to the letter: `1` is not `True`, and keys have an order."""
    found = plain(text)
    assert found is None or repr(found) == repr(_truth(text))
    return found is not None


@pytest.mark.parametrize("text", READ)
def test_what_it_reads(text: str) -> None:
    assert _agrees(text) and _agrees(f"{text}\n")


@pytest.mark.parametrize("text", LEFT)
def test_what_it_leaves_to_the_library(text: str) -> None:
    assert plain(text) is None
    assert repr(read_toml(text)) == repr(tomllib.loads(text))


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_wrong_is_said_by_the_library(text: str) -> None:
    assert plain(text) is None and plain(f"{text} \n") is None
    with pytest.raises(tomllib.TOMLDecodeError) as truth:
        tomllib.loads(text)
    with pytest.raises(ValueError) as said:
        read_toml(text)
    assert str(said.value) == str(truth.value)


_parts = st.sampled_from(["a", "b", "c", "a-1", '"a"', "'b c'"])
_keys = st.lists(_parts, min_size=1, max_size=3).map(".".join)
_scalars = st.sampled_from(
    ["0", "7", "12", "true", "false", '"x"', "''", "'#'", '"/a,]"', "1.5", '"\\t"', '"""\\\n x"""']
)
_values = st.recursive(
    _scalars | st.sampled_from(["[]", "{}", "[\n]"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: f"[{', '.join(values)}]")
        | st.lists(inner, max_size=3).map(
            lambda values: "[\n" + "".join(f" {value}, # one\n" for value in values) + "]"
        )
        | st.lists(st.tuples(_parts, inner), max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{key} = {value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=4,
)
_lines = st.one_of(
    st.tuples(_keys, _values).map(" = ".join),
    _keys.map(lambda key: f"[{key}]"),
    _keys.map(lambda key: f"[[{key}]]"),
    st.sampled_from(["", "# comment", " \t", "a = 1 # comment"]),
)
_NASTY = "\"'[]{}=,.#\\\n\r\t \0\x7f\ufeff\u00a0\u0661ü-_+aab01e:"


@st.composite
def _texts(draw: st.DrawFn) -> str:
    """Lines of which many contradict others; some are put twice or elsewhere, and some characters are changed."""
    lines = draw(st.lists(_lines, max_size=9))
    for _ in range(draw(st.integers(0, 2)) if lines else 0):
        line = draw(st.sampled_from(lines))
        if draw(st.booleans()):
            lines.remove(line)
        lines.insert(draw(st.integers(0, len(lines))), line)
    text = draw(st.sampled_from(["\n", "\n", "\r\n"])).join(lines)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(["", *_NASTY])) + text[at + draw(st.integers(0, 1)) :]
    return text


@settings(max_examples=500)
@given(_texts())
@example("[[a]]\nb.c=1\n[x]\n[[a]]\nb.c=2")
def test_any_text_near_toml_is_read_as_by_the_library(text: str) -> None:
    _agrees(text)


@settings(max_examples=300)
@given(
    st.text(alphabet=_NASTY, max_size=12),
    st.sampled_from(["", "a = ", "a = [", "a = {", "[a]\n", "[[a]]\nb", "a.", "# "]),
)
def test_any_characters_are_read_as_by_the_library(text: str, before: str) -> None:
    _agrees(before + text)


def test_what_sites_start_from_is_read() -> None:
    """The example as it is and with all of its settings, the site module for Cray's MPI, and what the pages show."""
    given = (DOCS / "udi.toml.example").read_text()
    assert _agrees(given)
    assert _agrees(re.sub(r"^# (\w+ = |\[)", r"\1", given, flags=re.MULTILINE))
    assert _agrees((DOCS / "cray-mpi.toml.example").read_text())
    shown = [block for page in sorted(DOCS.glob("*.md")) for block in _shown(page.read_text())]
    assert shown and all(map(_agrees, shown))


def _shown(page: str) -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


class _Login(LoginAccess):
    def path(self, inside: str) -> Path:
        return self.state / inside[1:]


def test_what_simulated_machines_have_is_read(tmp_path: Path) -> None:
    """With changes of all kinds that their tests make."""
    changes: xc_site.Tables = {
        "environment": {"set": {"A": "b"}},
        "node": {"steps": [{"kind": "directory", "target": "/x"}]},
    }
    machine = _Login(tmp_path)
    cluster = Cluster(tmp_path)
    (tmp_path / "etc-udi").mkdir()
    for changed in ({}, changes):
        xc_site.configure(machine, changed)
        assert _agrees(machine.path(xc_site.CONFIGURATION).read_text())
        slurm_site.configure(cluster, changed)
        assert _agrees((tmp_path / "etc-udi/udi.toml").read_text())
    assert _agrees(StandIns(tmp_path).config_path.read_text())


@pytest.mark.parametrize(
    "piece",
    [
        "# comment\n",
        " ",
        "\n",
        "a",
        "a.",
        '"a".',
        "[",
        "[[a]]\n",
        "[a.a.a]\nb = 1\n",
        "[[a]]\n[a.b]\n",
        "a = [\n",
        "{a=",
        "'a',\n",
        '"',
    ],
)
@pytest.mark.parametrize("before", ["", "a = [", "a = ", "a = {", "a = '", 'a = """'])
def test_a_long_text_is_read_in_linear_time(before: str, piece: str) -> None:
    assert_linear(lambda size: plain(before + piece * (size // len(piece))), 65536)


def test_a_long_text_of_many_tables_is_read_in_linear_time() -> None:
    def read(count: int) -> None:
        assert plain("".join(f"[a.t{number}]\nx = [{number}, 'y']\ny.z = 1\ny.x = 1\n" for number in range(count)))

    assert_linear(read, 4000)
