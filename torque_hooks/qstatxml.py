"""The XML of `qstat -x`: a list of jobs, each with fields. Read as it comes, by the standard library's expat.

A prologue reads one small answer, and lxml would take as long to import as an interpreter takes to start.
"""

from __future__ import annotations

from xml.parsers import expat

from udiroot.errors import UpstreamFailed, printable

_REPLACEMENT = "\ufffd"
_NOT_XML = dict.fromkeys((*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0xFFFE, 0xFFFF), _REPLACEMENT)


def jobs_in(answer: bytes) -> list[dict[str, str]]:
    """Each job's fields, by name, with the text of what is nested in them; the first of those with one name counts.

    Control characters, which Torque leaves raw (cray-reference T41), become a character that no name allows: refused
    later. Raises UpstreamFailed where the answer is not XML, or declares a document type, which Torque never does.
    """
    if not answer.strip():
        raise UpstreamFailed("qstat printed nothing")
    reader = _Reader()
    try:
        reader.read(answer.decode("utf-8", "replace").translate(_NOT_XML).encode())
    except expat.ExpatError as error:
        raise UpstreamFailed(f"qstat's answer is not valid XML: {printable(error)}") from error
    return reader.jobs


class _Reader:
    """Collects the children of each `Job` element."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, str]] = []
        self._path: list[str] = []
        self._job = 0
        """How deep the open job is; 0 outside of one."""
        self._text: list[str] = []

    def read(self, text: bytes) -> None:
        """Raises ExpatError, UpstreamFailed."""
        parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._document_type
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.Parse(text, True)

    def _document_type(self, *_: object) -> None:
        raise UpstreamFailed("qstat's answer is not a list of jobs: it declares a document type")

    def _start(self, name: str, _: dict[str, str]) -> None:
        self._path.append(name)
        if name == "Job" and not self._job:
            self._job = len(self._path)
            self.jobs.append({})
        if len(self._path) <= self._job + 1:
            self._text.clear()

    def _end(self, name: str) -> None:
        if self._job and len(self._path) == self._job + 1:
            self.jobs[-1].setdefault(name, "".join(self._text))
        if len(self._path) == self._job:
            self._job = 0
        self._path.pop()
