"""What nodes reported of one step of a job: a few lines of the log, and all of it in a file where the step failed.

The file is `<jobs.reports>/JOB.STEP`, for root only: each cause, the nodes that have it, and what else was printed. Its
size is bounded, and so is the number of files: the oldest go first.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping

from udi import durable
from udi.config import SiteConfig
from udi.fanout import FanOutResult
from udi.jobid import job_id
from udi.logformat import event
from udi.nodes import Node, folded, in_brief
from udi.nodesummary import Times, causes, grouped, in_words
from udi.oserrors import reason
from udiroot.errors import UdiError, counted

SETUP, TEARDOWN = "setup", "teardown"
_MAX_BYTES = 256 << 10
_MOST_FILES = 100
_MOST_REMARKS = 2
_MAX_OTHER = 200
_log = logging.getLogger("udi.jobs")


def log_failures(step: str, errors: Mapping[Node, str]) -> None:
    """One line for each cause, and one for the rest of many."""
    for cause in causes(errors):
        fields = event(step, message=f"{step} failed", nodes=cause.where, count=len(cause.nodes), cause=str(cause))
        _log.error("%s: %s: %s", step, cause.where, cause, extra=fields)


def log_remarks(step: str, result: FanOutResult, usual: str) -> None:
    """What nodes on which the step succeeded say of it, where that is not the usual; and the times of all."""
    remarks = {node: report.words for node, report in result.reports.items() if report.ok and report.words != usual}
    for cause in causes(remarks, _MOST_REMARKS):
        fields = event(step, message=f"{step} remark", nodes=cause.where, count=len(cause.nodes), remark=str(cause))
        _log.info("%s: %s: %s", step, cause.where, cause, extra=fields)
    if result.reports:
        times = times_of(result)
        nodes = in_brief(result.reports)
        fields = event(step, message=f"{step} took", nodes=nodes, **times.as_fields())
        _log.info("%s: %s: %s", step, nodes, times, extra=fields)


def log_stragglers(step: str, result: FanOutResult) -> None:
    """One line on a step that failed: how many nodes reported, the slowest of them, and those of which no answer came.
    These may have many causes, or be among the rest of many; here they stand together."""
    reported, count = len(result.reports), len(result.asked)
    times = times_of(result) if reported else None
    silent = in_brief(result.silent) if result.silent else ""
    fields = event(
        step,
        message=f"{step} reported",
        reported=reported,
        count=count,
        **(times.as_fields() if times else {}),
        **({"silent": silent, "silent_count": len(result.silent)} if silent else {}),
    )
    _log.info("%s: %s", step, in_words(reported, count, str(times or ""), silent), extra=fields)


def times_of(result: FanOutResult) -> Times:
    """How long the nodes took that reported, of which there is one at least."""
    return Times.of({node: report.milliseconds for node, report in result.reports.items()})


def keep_reports(site: SiteConfig, job: str, step: str, result: FanOutResult) -> None:
    """Keep everything that the nodes said of a step that failed, and log where. What cannot be kept stops nobody."""
    if result.other_lines:
        _log.info("%s: printed beside the reports: %s", step, "; ".join(result.other_lines)[:_MAX_OTHER])
    if not site.jobs.reports:
        return
    path = f"{site.jobs.reports}/{job_id(job)}.{step}"
    try:
        durable.make_directory(site.jobs.reports)
        durable.write_text(path, _text(result))
        _remove_oldest(site.jobs.reports)
    except (OSError, UdiError) as error:
        words = error.message if isinstance(error, UdiError) else reason(error)
        _log.warning("what the nodes reported is not kept in %s: %s", site.jobs.reports, words)
    else:
        _log.info("%s: what each node reported is in %s", step, path)


def _text(result: FanOutResult) -> str:
    """As many complete lines as fit."""
    kept, size = [], 0
    for line in _lines(result):
        size += len(line) + 1
        if size > _MAX_BYTES - 100:
            kept.append("(more is not kept)")
            break
        kept.append(line)
    return "\n".join([*kept, ""])


def _lines(result: FanOutResult) -> Iterator[str]:
    yield f"{counted(len(result.asked), 'node')} asked, {len(result.reports)} reported"
    for words, nodes in grouped(result.errors()).items():
        yield f"{folded(nodes)}: {words}"
    yield from (f"printed: {line}" for line in result.other_lines)


def _remove_oldest(directory: str) -> None:
    files: list[tuple[float, str]] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # another hook removes the oldest, too
                files += [(entry.stat(follow_symlinks=False).st_mtime, entry.path)] if entry.is_file() else []
    for _, path in sorted(files)[:-_MOST_FILES]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
