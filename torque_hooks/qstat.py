"""A job as pbs_server has it, by `qstat -x`: one line of XML (cray-reference T40 to T47).

pbs_mom passes none of the user's variables to its hooks (T21), so they come from here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lxml import etree

from udi.command import Deadline, run
from udi.config import SiteConfig
from udiroot.errors import UpstreamFailed, printable

_UNKNOWN_JOB = 153
"""15001 modulo 256 (T46)."""
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_NID_HOST = re.compile(r"(?:nid)?[0-9]+")


@dataclass(frozen=True)
class TorqueJob:
    """What the hooks need of a job. Texts are as Torque has them: user text, where the user chose them."""

    id: str
    name: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    starts: int = 0
    error_path: str = ""
    output_path: str = ""
    join: str = "n"
    exec_host: str = ""
    is_interactive: bool = False

    @property
    def has_nodes(self) -> bool:
        """Whether Torque knows of a compute node of the job: those go by their bare nid (T2, T4)."""
        hosts = (place.split("/", 1)[0] for place in self.exec_host.split("+"))
        return any(_NID_HOST.fullmatch(host) for host in hosts)


def read_job(site: SiteConfig, job: str, deadline: Deadline) -> TorqueJob:
    """The job called `job`. Raises UpstreamFailed when Torque does not know it or answers nonsense, TimedOut."""
    done = run([site.torque.qstat, "-x", job], seconds=deadline.left(site.torque.command_deadline))
    if done.exit_code == _UNKNOWN_JOB:
        raise UpstreamFailed(f"qstat does not know job {printable(job)}")
    return parse_job(done.require_success().stdout, job)


def parse_job(answer: bytes, job: str) -> TorqueJob:
    """The job in an answer of `qstat -x`. Raises UpstreamFailed."""
    for element in _document(answer).iter("Job"):
        if _text(element, "Job_Id") == job:
            return TorqueJob(
                id=job,
                name=_text(element, "Job_Name"),
                variables=split_variables(_text(element, "Variable_List")),
                starts=_count(_text(element, "start_count")),
                error_path=_text(element, "Error_Path"),
                output_path=_text(element, "Output_Path"),
                join=_text(element, "Join_Path") or "n",
                exec_host=_text(element, "exec_host"),
                is_interactive=_text(element, "interactive").lower() not in ("", "false", "0"),
            )
    raise UpstreamFailed(f"qstat answered without job {printable(job)}")


def split_variables(text: str) -> dict[str, str]:
    """The variables of a `Variable_List`, after XML decoding.

    Items are separated by commas without a backslash before them, each is split at its first `=`, then the backslashes
    go (T42). Names can stand there twice, the last one wins (T43).
    """
    variables = {}
    for item in re.findall(r"(?:[^,\\]|\\.|\\$)+", text, re.DOTALL):
        name, _, value = item.partition("=")
        variables[_unescaped(name)] = _unescaped(value)
    return variables


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.?)", r"\1", text, flags=re.DOTALL)


def _document(answer: bytes) -> etree._Element:
    """Control characters, which Torque leaves raw (T41), become a sign that no name allows: they are refused later."""
    if not answer.strip():
        raise UpstreamFailed("qstat answered nothing")
    text = _NOT_XML.sub("\ufffd", answer.decode("utf-8", "replace"))
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True)
    try:
        root: etree._Element = etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError as error:
        raise UpstreamFailed(f"qstat's answer is not XML: {printable(error)}") from error
    return root


def _text(job: etree._Element, name: str) -> str:
    found = job.find(name)
    return "" if found is None else "".join(str(part) for part in found.itertext())


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
