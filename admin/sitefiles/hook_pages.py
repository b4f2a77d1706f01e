"""The man pages of what Torque runs. Its programs have no options for people, so their pages are written out here."""

from __future__ import annotations

from manual.page import Definitions, Page, Paragraph, Section
from torque_hooks.exit_codes import ABORT, REQUEUE, RUN
from torque_hooks.submit_filter import REJECTED

_CONFIG = ("--config FILE", "Site configuration.")


def hook_pages() -> tuple[Page, ...]:
    """udi-prologue(8), udi-epilogue(8) and udi-submit-filter(8)."""
    return (_prologue(), _epilogue(), _submit_filter())


def _prologue() -> Page:
    return Page(
        "udi-prologue",
        8,
        "set up the root of a Torque job on each of its nodes",
        ("udi-prologue [--config FILE] JOBID USER GROUP NAME RESOURCES QUEUE ACCOUNT",),
        (
            Section(
                "Description",
                (
                    Paragraph(
                        "pbs_mom runs it as root before a job starts, through the script prologue that udi-admin"
                        " install puts into torque.mom_priv. A job that asks for no image costs one qstat, and no"
                        " Python is started. For any other job the root is set up on every node, or, where that"
                        " fails, on none."
                    ),
                    Paragraph(
                        "Beside a prologue of the site's own, ours is installed as torque.mom_priv/udi-prologue;"
                        " udi-admin install prints the line by which the site's calls it."
                    ),
                ),
            ),
            Section("Options", (Definitions((_CONFIG,)),)),
            _exit_codes(
                (RUN, "The job runs: its root is set up, or it needs none."),
                (ABORT, "Torque deletes the job: its user must change something, and the job's output says what."),
                (
                    REQUEUE,
                    "Torque requeues the job: an error of the site or of a node. After torque.max_starts such starts"
                    " the job is held.",
                ),
            ),
        ),
        ("udi-epilogue(8)", "udi-admin(8)", "udi.toml(5)"),
    )


def _epilogue() -> Page:
    return Page(
        "udi-epilogue",
        8,
        "take down the root of a Torque job on each of its nodes",
        ("udi-epilogue [--config FILE] JOBID USER GROUP NAME SESSION RESOURCES USED QUEUE ACCOUNT EXITCODE",),
        (
            Section(
                "Description",
                (
                    Paragraph(
                        "pbs_mom runs it as root after a job, and after a prologue that failed. It takes down what the"
                        " prologue recorded; a job without a record had no image. Running it twice is harmless."
                    ),
                    Paragraph(
                        "A node that is not clean afterwards is taken out of service, within jobs.max_nodes_out and"
                        " jobs.max_percent_out. udi-admin status shows it with the reason, and udi-admin recover brings"
                        " it back."
                    ),
                ),
            ),
            Section("Options", (Definitions((_CONFIG,)),)),
            _exit_codes((0, "Every node is clean."), note="Any other is only logged by Torque."),
        ),
        ("udi-prologue(8)", "udi-admin(8)", "udi.toml(5)"),
    )


def _submit_filter() -> Page:
    return Page(
        "udi-submit-filter",
        8,
        "check the image of a Torque job when it is submitted",
        ("udi-submit-filter [QSUB OPTIONS] < SCRIPT",),
        (
            Section(
                "Description",
                (
                    Paragraph(
                        "qsub runs it as the user, by the line SUBMITFILTER of torque.cfg. It copies the script from"
                        " standard input to standard output. Where the job asks for an image, it checks the name, the"
                        " user's rights and the volumes, has the gateway pull a missing image, and adds the line that"
                        " pins the job to the image's id."
                    ),
                    Paragraph("Beside a filter of the site's own, that one passes its output through ours."),
                ),
            ),
            _exit_codes(
                (0, "The script was copied."),
                (1, "The script cannot be read or written; qsub submits nothing."),
                (130, "Interrupted; qsub submits nothing."),
                (REJECTED, "The job is refused, with the reason on standard error."),
            ),
        ),
        ("udi(1)", "udi-prologue(8)", "udi.toml(5)"),
    )


def _exit_codes(*codes: tuple[int, str], note: str = "") -> Section:
    listed = Definitions(tuple((str(code), text) for code, text in codes))
    return Section("Exit status", (listed, *((Paragraph(note),) if note else ())))
