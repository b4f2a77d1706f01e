"""The audit of images: the site's settings for it, and what its policy makes of an image's report.

Reports are made by `gateway.audit`, and kept beside the images (`udi.audit_report`). They are judged where a job is
submitted or starts, by the settings of that moment, so that a change of the policy needs no new scan.
"""

from __future__ import annotations

from typing import Literal

from udi.audit_report import SEVERITIES, Summary
from udi.settings import PATH, SECONDS, Bounds, OneOf, setting
from udi.values import Frozen
from udiroot.errors import ConfigError, NotPermitted, printable

Level = Literal["", "clean", "note", "warn", "refuse"]
"""What an image counts as; nothing where the site audits none."""
_SEVERITY = OneOf(*SEVERITIES, "never")


class AuditConfig(Frozen, kw_only=True):
    """The scanner that looks at images before they are published, and what its findings do to jobs."""

    command: tuple[str, ...] = setting([], "the scanner's words; it gets the inventory of an image; empty: no audit")
    feed: tuple[str, ...] = setting(
        [], "files and directories that it knows from; a change is a reason to rescan", PATH
    )
    warn: str = setting("high", "severity from which users are warned, or never", _SEVERITY)
    refuse: str = setting("never", "severity from which new jobs are refused, or never", _SEVERITY)
    unscanned: str = setting("warn", "what an image without a report counts as", OneOf("note", "warn", "refuse"))
    network: bool = setting(False, "whether the scanner may use the network")
    seconds: int = setting(600, "seconds that scanning one image may take", SECONDS)
    memory_bytes: int = setting(2 << 30, "limit on the memory of each process of the scanner", Bounds(1 << 26))
    max_inventory_bytes: int = setting(256 << 20, "limit on the list of an image's files and packages", Bounds(1 << 20))

    @property
    def is_on(self) -> bool:
        return bool(self.command)

    def check(self) -> None:
        """Raises ConfigError for a command that is not one."""
        if self.command and (not self.command[0].startswith("/") or "" in self.command):
            raise ConfigError("command must begin with the absolute path of a program, and have no empty word")


class Verdict(Frozen):
    """What an image counts as, and why: words that follow its name."""

    level: Level = ""
    words: str = ""

    def warning(self, name: str) -> str:
        """One line for whoever uses the image; empty where nothing is to be said."""
        if self.level != "warn":
            return ""
        return f"image {printable(name)} {self.words}; udi inspect {printable(name)} lists what is known"

    def notice(self, name: str) -> str:
        """One line for whoever pulls the image, also where new jobs are refused."""
        if self.level == "refuse":
            return f"image {printable(name)} {self.words}; this site refuses it for new jobs"
        return self.warning(name)

    def require(self, name: str) -> None:
        """Raises NotPermitted where new jobs are refused."""
        if self.level == "refuse":
            raise NotPermitted(
                f"image {printable(name)} {self.words}, which this site refuses for new jobs",
                f"udi inspect {printable(name)} lists what is known; pull or build one without, or ask the site",
            )


def judge(settings: AuditConfig, summary: Summary | None) -> Verdict:
    """The verdict on an image with this report, or with none."""
    if not settings.is_on:
        return Verdict()
    if summary is None or not summary.is_scanned:
        why = summary.error if summary else ""
        why = f" ({why if why.isascii() and why.isprintable() else printable(why)})" if why else ""
        unscanned: Level = "note" if settings.unscanned == "note" else "warn"
        return Verdict("refuse" if settings.unscanned == "refuse" else unscanned, f"has not been scanned{why}")
    counts = {name: count for name in reversed(SEVERITIES) if (count := getattr(summary.counts, name))}
    if not counts:
        return Verdict("clean", "has no findings")
    worst = next(iter(counts))
    level: Level = "note"
    if _reaches(worst, settings.refuse):
        level = "refuse"
    elif _reaches(worst, settings.warn):
        level = "warn"
    return Verdict(level, f"has {_counted(counts, settings, level)}{_example(summary)}")


def _counted(counts: dict[str, int], settings: AuditConfig, level: Level) -> str:
    """The findings that make the level; all of them where it is but a note."""
    least = {"refuse": settings.refuse, "warn": settings.warn}.get(level, SEVERITIES[0])
    shown = {name: count for name, count in counts.items() if _reaches(name, least)}
    *most, last = [f"{count} {name}" for name, count in shown.items()]
    words = f"{', '.join(most)} and {last}" if most else last
    return f"{words} {'finding' if sum(shown.values()) == 1 else 'findings'}"


def _example(summary: Summary) -> str:
    worst = summary.worst
    if worst is None:
        return ""
    fixed = f", fixed in {printable(worst.fixed, 60)}" if worst.fixed else ""
    package = f" in {printable(worst.package, 60)} {printable(worst.version, 60)}" if worst.package else ""
    return f" ({printable(worst.id, 60)}{package}{fixed})"


def _reaches(severity: str, least: str) -> bool:
    return least != "never" and SEVERITIES.index(severity) >= SEVERITIES.index(least)
