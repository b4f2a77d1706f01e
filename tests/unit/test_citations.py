"""Every fact that the repository cites is in docs/reference/, whose README says how to cite one."""

from __future__ import annotations

import os
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("cray", "torque", "slurm")
SKIPPED = {"__pycache__", "build", "data", "dist"}
SUFFIXES = {"", ".c", ".cfg", ".example", ".h", ".j2", ".md", ".py", ".sh", ".toml"}

HEADING = re.compile(r"^#+ (\d+(?:\.\d+)*|[a-z])\.? ", re.MULTILINE)
ITEM = re.compile(r"^- \*\*([A-Z]{1,2}\d{1,2}|\d+\.\d+)\*\*", re.MULTILINE)

_GAP = r"(?:\s|#)+"  # a citation may be broken over two lines, of comments too
_FACT = r"[A-Z]{1,2}\d{1,2}\b"
_LABEL = rf"(?<!\w)(?:{_FACT}|\d+(?:\.\d+)*\b|[a-z]\b)"
_SEPARATOR = rf"(?:,{_GAP}(?:and{_GAP})?|{_GAP}(?:and|or|to){_GAP})"
FULL = re.compile(
    rf"\b(?P<document>{'|'.join(DOCUMENTS)})-reference`?{_GAP}(?:sections?{_GAP})?(?P<labels>{_LABEL}(?:{_SEPARATOR}{_LABEL})*)"
)
BARE = re.compile(rf"\b{_FACT}")
PARENTHESES = re.compile(rf"\((?:see )?{_FACT}(?:{_SEPARATOR}{_FACT})*(?=[):;,])")
Labels = dict[str, set[str]]


@dataclass(frozen=True)
class Citation:
    """One label that a file cites; `document` is None where the label stands alone."""

    line: int
    document: str | None
    label: str

    def leads_somewhere(self, labels: Labels) -> bool:
        documents = DOCUMENTS if self.document is None else (self.document,)
        return any(self.label in labels[document] for document in documents)

    def __str__(self) -> str:
        return f"{self.document}-reference {self.label}" if self.document else self.label


def _labels() -> Labels:
    texts = {document: (ROOT / f"docs/reference/{document}.md").read_text() for document in DOCUMENTS}
    return {document: {*HEADING.findall(text), *ITEM.findall(text)} for document, text in texts.items()}


def _prose(text: str) -> Iterator[tuple[int, str]]:
    """Comments and docstrings of a Python file, each with the number of its first line."""
    at_start = True
    for token in tokenize.generate_tokens(StringIO(text).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and at_start):
            yield token.start[0], token.string
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            at_start = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)


def _citations(name: str, text: str) -> list[Citation]:
    """What a file cites: in full anywhere; alone in parentheses, and in prose of code that also cites in full."""
    found = []
    for match in FULL.finditer(text):
        start = match.start("labels")
        for label in re.finditer(_LABEL, match["labels"]):
            found.append(Citation(_line(text, start + label.start()), match["document"], label[0]))
    cites_in_full = bool(found)
    without_full = FULL.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    if name.endswith(".py"):
        prose = list(_prose(without_full))
    else:
        prose, cites_in_full = [(1, without_full)], False
    for first, part in prose:
        spans = [(0, len(part))] if cites_in_full else [match.span() for match in PARENTHESES.finditer(part)]
        for start, end in spans:
            for label in BARE.finditer(part, start, end):
                found.append(Citation(first + part.count("\n", 0, label.start()), None, label[0]))
    return found


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _dangling(name: str, text: str, labels: Labels) -> list[str]:
    """One line for each citation that leads nowhere; the documents themselves need not name themselves."""
    found = _citations(name, text)
    may_stand_alone = name.startswith("docs/reference/") or any(citation.document for citation in found)
    wrong = []
    for citation in found:
        if not citation.leads_somewhere(labels):
            wrong.append(f"{name}:{citation.line}: {citation} is not a label of docs/reference/")
        elif not may_stand_alone:
            wrong.append(f"{name}:{citation.line}: {citation} is cited without its document")
    return wrong


def _files() -> list[Path]:
    """The repository's own text files, as paths in it; hidden directories and what is built are passed over."""
    found = []
    for directory, directories, names in os.walk(ROOT):
        directories[:] = [
            name for name in directories if not name.startswith(".") and name not in SKIPPED and "egg-info" not in name
        ]
        paths = (Path(directory, name) for name in names if not name.startswith("."))
        found += [path.relative_to(ROOT) for path in paths if path.suffix in SUFFIXES and path != Path(__file__)]
    return sorted(found)


def _text(path: Path) -> str:
    return (ROOT / path).read_text(errors="replace")


def test_every_citation_leads_to_a_label() -> None:
    labels = _labels()
    wrong = [line for path in _files() for line in _dangling(str(path), _text(path), labels)]
    assert not wrong, "\n" + "\n".join(wrong)


def test_there_are_citations_and_labels_at_all() -> None:
    labels = _labels()
    assert {"S8", "2.2", "T42"} <= labels["cray"]
    assert labels["torque"] == set("abcdefghi")
    assert {"1", "1.10"} <= labels["slurm"]
    citing = [path for path in _files() if _citations(str(path), _text(path))]
    assert len(citing) > 30


def test_facts_have_labels_of_their_own() -> None:
    """A label that is cited alone must mean one fact, in one document."""
    facts = [
        label
        for document in DOCUMENTS
        for label in ITEM.findall((ROOT / f"docs/reference/{document}.md").read_text())
        if label[0].isupper()
    ]
    assert len(facts) == len(set(facts))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("cray-reference S8", []),
        ("cray-reference S99", ["1: cray-reference S99"]),
        ("a\n\ncray-reference X8 to X99", ["3: cray-reference X99"]),
        ("cray-reference 2.2", []),
        ("cray-reference 2.9", ["1: cray-reference 2.9"]),
        ("`cray-reference` sections 2 and 77", ["1: cray-reference 77"]),
        ("torque-reference a and b, and cray-reference 4.3 to\n4.99", ["2: cray-reference 4.99"]),
        ("torque-reference z", ["1: torque-reference z"]),
        ("torque-reference c, T60", ["1: torque-reference T60"]),
        ("# cray-reference T2,\n# T98", ["2: cray-reference T98"]),
        ("the document cray-reference, a sheet", []),
        ("torque-reference a: a table (Q7, T42)", ["1: Q7"]),
        ("ISO A4 paper, room Q7", []),
    ],
)
def test_a_wrong_label_is_found(text: str, wrong: list[str]) -> None:
    expected = [f"page.md:{line} is not a label of docs/reference/" for line in wrong]
    assert _dangling("page.md", text, _labels()) == expected


def test_a_label_alone_needs_a_citation_in_full() -> None:
    assert _dangling("page.md", "a table (T42)", _labels()) == ["page.md:1: T42 is cited without its document"]
    assert not _dangling("docs/reference/cray.md", "a table (T42)", _labels())


EXAMPLE = '''"""By cray-reference T2."""

KEY = "Q1"  # as in T97


def f() -> None:
    """First.

    See Q8.
    """
'''


def test_labels_alone_in_code_are_followed_in_prose_only() -> None:
    found = [(citation.line, citation.label) for citation in _citations("example.py", EXAMPLE)]
    assert found == [(1, "T2"), (3, "T97"), (9, "Q8")]
