"""`qstat`: the plain table, `-f`, and `-x` on one line with both of Torque's escapings (cray-reference T40 to T46); and
its version (T51). An array is one job, `12[].sdb`, and its tasks with `-t` (torque-reference f)."""

import dataclasses
import re
import textwrap

from xcsim.job import WHOLE, Job
from xcsim.settings import Settings

UNKNOWN_JOB = 153  # 15001 modulo 256 (T46)
_ID = re.compile(r"(?P<number>\d+)(?P<array>\[\d*\])?(?:\.(?P<server>.*))?")
_XML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"})


def run(arguments: list[str], jobs: dict[str, Job], settings: Settings) -> tuple[int, str, str]:
    """Exit code, output and errors of one call."""
    if "--version" in arguments:
        return 0, "", f"version: {settings.torque_version}\n"
    flags = "".join(word[1:] for word in arguments if word.startswith("-"))
    names = [word for word in arguments if not word.startswith("-")]
    wanted, code, errors = _wanted(names, jobs, settings, tasks="t" in flags)
    if not wanted:
        return code, "", errors
    if "x" in flags:
        return code, _xml(wanted, settings), errors
    if "f" in flags:
        return code, "\n".join(_full(job, settings, wrap="1" not in flags) for job in wanted), errors
    return code, _table(wanted), errors


def find(name: str, jobs: dict[str, Job], settings: Settings) -> list[Job]:
    """The job of that id, with or without the server's name; of an array all tasks."""
    read = _ID.fullmatch(name)
    if not read or read["server"] not in (None, settings.server_name):
        return []
    number, array = read["number"], read["array"] or ""
    if array == "[]":
        return [job for job in jobs.values() if job.task is not None and str(job.number) == number]
    job = jobs.get(f"{number}{array}.{settings.server_name}")
    return [job] if job else []


def full_id(name: str, settings: Settings) -> str:
    return name if "." in name else f"{name}.{settings.server_name}"


def _wanted(names: list[str], jobs: dict[str, Job], settings: Settings, *, tasks: bool) -> tuple[list[Job], int, str]:
    found, errors = [] if names else list(jobs.values()), ""
    for name in names:
        named = find(name, jobs, settings)
        if not named:
            errors += f"qstat: Unknown Job Id Error {full_id(name, settings)}\n"
        found += [_whole(named)] if named and "[]" in name and not tasks else named
    if not names and not tasks:
        arrays: dict[int, list[Job]] = {}
        for job in found:
            arrays.setdefault(job.number, []).append(job)
        found = [_whole(each) if each[0].task is not None else each[0] for each in arrays.values()]
    return found, UNKNOWN_JOB if errors else 0, errors


def _whole(tasks: list[Job]) -> Job:
    """The array itself: queued while a task is, running while a task runs, and complete with the last one."""
    states = {task.state for task in tasks}
    state = next(state for state in "RQHEC" if state in states)
    name = tasks[0].name.removesuffix(f"-{tasks[0].task}")
    return dataclasses.replace(tasks[0], task=WHOLE, name=name, state=state)


def _table(jobs: list[Job]) -> str:
    lines = [
        "Job ID                    Name             User            Time Use S Queue",
        "------------------------- ---------------- --------------- -------- - -----",
    ]
    for job in jobs:
        used = job.used["walltime"] if job.started else "0"
        lines.append(f"{job.id:<26} {job.name[:16]:<16} {job.user[:15]:<15} {used:>8} {job.state} {job.queue:<15}")
    return "\n".join(lines) + "\n"


def _xml(jobs: list[Job], settings: Settings) -> str:
    """One line after the declaration."""
    body = ""
    for job in jobs:
        body += f"<Job><Job_Id>{job.id}</Job_Id>"
        for name, value in job.attributes(settings):
            if isinstance(value, dict):
                inner = "".join(f"<{part}>{_escape(text)}</{part}>" for part, text in value.items())
                body += f"<{name}>{inner}</{name}>"
            else:
                body += f"<{name}>{_escape(value)}</{name}>"
        body += "</Job>"
    return f'<?xml version="1.0"?>\n<Data>{body}</Data>\n'


def _escape(text: str) -> str:
    return text.translate(_XML)


def _full(job: Job, settings: Settings, *, wrap: bool) -> str:
    lines = [f"Job Id: {job.id}"]
    for name, value in job.attributes(settings):
        pairs = value.items() if isinstance(value, dict) else [("", value)]
        for part, text in pairs:
            line = f"    {name}{'.' if part else ''}{part} = {text}"
            lines.append(_wrapped(line) if wrap else line)
    return "\n".join(lines) + "\n"


def _wrapped(line: str) -> str:
    """Long values go on after a newline and a tab (T45)."""
    return "\n\t".join(textwrap.wrap(line, 78, break_on_hyphens=False, drop_whitespace=False, initial_indent=""))
