"""The audit of images by a real service: scanned before they are published, shown, refused, and scanned again."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.client import client
from jobs.image import choose_image
from tests.gateway.archives import BASE, Entry, directory, file, hardlink, make_archive, symlink
from tests.gateway.service import ACCOUNT, ANNA, BERT, NOBODY, Service, directory_for_all, run_as
from tests.gateway.support import needs_root
from udi.accounts import account_of_uid
from udi.request import job_request
from udi.store import StoreLayout
from udiroot.errors import NotPermitted

pytestmark = needs_root
DOCS = Path(__file__).parents[2] / "docs"
RELEASE = file("etc/os-release", b'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian"\n')
INSTALLED = b"Status: install ok installed\n"
OLD = b"Package: libssl3\n" + INSTALLED + b"Version: 3.0.15-1~deb12u1\nArchitecture: amd64\nSource: openssl\n\n"
NEW = OLD.replace(b"3.0.15", b"3.0.16")
ZLIB = b"Package: zlib1g\n" + INSTALLED + b"Version: 1:1.2.13.dfsg-1\nSource: zlib\n\n"
BASE_FILES = b"Package: base-files\n" + INSTALLED + b"Version: 12\n\n"


class Audited(Service):
    """A service with the example of a scanner, which notes each call, and a feed."""

    def __init__(self, at: Path) -> None:
        self.near = at / "own/near"
        self.calls, self.feed, self.mode = at / "calls", at / "feed.json", at / "mode"
        shutil.copy(DOCS / "scanner.py", at / "scanner.py")
        shutil.copy2(Path(__file__).with_name("feed.json"), self.feed)
        self.calls.touch()
        self.calls.chmod(0o666)
        self.mode.write_text("")
        program = at / "scanner"
        program.write_text(
            f"#!/bin/sh\necho call >>{self.calls}\ncase $(cat {self.mode}) in\n"
            f"hang) exec sleep 60;;\ndie) echo the feed is damaged >&2; exit 3;;\nesac\n"
            f"exec {sys.executable} -I {at}/scanner.py {self.feed}\n"
        )
        program.chmod(0o755)
        super().__init__(
            at,
            tables=f'[audit]\ncommand = ["{program}"]\nfeed = ["{self.feed}"]\nwarn = "medium"\nrefuse = "critical"\n'
            f'seconds = 1\n[[systems]]\nname = "near"\npath = "{self.near}"\n',
        )

    def bring(self, name: str, *entries: Entry, uid: int = ANNA, public: bool = False) -> tuple[str, str]:
        """Pull an image of these entries; its id, and what was said but for the progress."""
        path = self.directory / f"{name.replace('/', '-')}.tar"
        image_id = make_archive(path, [list(BASE), entries], how="gzip")
        path.chmod(0o644)
        done = self.udi(uid, "pull", *(["--public"] if public else []), f"docker-archive:{path}", f"{name}:1")
        assert done.returncode == 0, done.stderr
        return image_id, "".join(line for line in done.stderr.splitlines(True) if line.startswith("udi: "))

    def rescan(self, *words: str, code: int = 0) -> list[dict[str, object]]:
        program = [sys.executable, "-c", "from gateway.service.cli import main; main()"]
        done = run_as(ACCOUNT, [*program, "--config", str(self.config), "rescan", "--json", *words])
        assert done.returncode == code, done.stderr
        found: list[dict[str, object]] = json.loads(done.stdout)["rescanned"]
        self.said = done.stderr
        return found

    def submit(self, uid: int, name: str) -> subprocess.CompletedProcess[str]:
        """What a submission program does, which ends with the id."""
        code = (
            "import sys\nfrom gateway.client.submission import image_id\n"
            "from udiroot.errors import UdiError, complain\n"
            "try:\n    print(image_id(site, 'qsub', sys.argv[2], wait=True))\n"
            "except UdiError as error:\n    sys.exit(complain('qsub', error))\n"
        )
        return self.python(uid, code, name)

    def change_feed(self, **severities: str) -> None:
        """Give advisories another severity."""
        document = json.loads(self.feed.read_text())
        for advisories in document.values():
            for advisory in advisories if isinstance(advisories, list) else []:
                advisory["severity"] = severities.get(advisory["package"], advisory["severity"])
        self.feed.write_text(json.dumps(document | {"version": "2026-11-21"}))


@pytest.fixture(scope="module")
def site() -> Iterator[Audited]:
    with directory_for_all("udi-audit-") as at, Audited(at) as running:
        yield running


@pytest.fixture(autouse=True)
def feed(site: Audited) -> None:
    """Each test has the feed and the scanner as they were."""
    shutil.copy2(Path(__file__).with_name("feed.json"), site.feed)
    site.mode.write_text("")


def status(text: bytes) -> Entry:
    return file("var/lib/dpkg/status", text)


def test_an_image_that_new_jobs_may_not_use(site: Audited) -> None:
    image_id, said = site.bring("bad", RELEASE, status(OLD + ZLIB))
    words = "has 1 critical finding (CVE-2026-1001 in libssl3 3.0.15-1~deb12u1, fixed in 3.0.16-1~deb12u1)"
    assert said == f"udi: warning: image bad:1 {words}; this site refuses it for new jobs\n"
    refused = site.submit(ANNA, "bad:1")
    assert (refused.returncode, refused.stdout) == (NotPermitted.exit_code, "")
    assert refused.stderr.splitlines()[0] == f"qsub: image bad:1 {words}, which this site refuses for new jobs"
    assert "udi inspect bad:1" in refused.stderr
    assert not list((site.store / "refs").glob(f"id:{image_id}*")), "nothing was pinned"
    shown = site.udi(ANNA, "inspect", "bad:1").stdout.splitlines()
    assert f"audit: refused for new jobs: {words}" in shown
    assert (
        "finding: critical CVE-2026-1001 libssl3 3.0.15-1~deb12u1 fixed in 3.0.16-1~deb12u1"
        " - a made-up hole https://security.centre/CVE-2026-1001" in shown
    )
    assert "finding: low CVE-2026-1002 zlib1g 1:1.2.13.dfsg-1 - no fix yet" in shown
    audit = site.ask(ANNA, "inspect", "bad:1")["audit"]
    assert (audit["level"], audit["packages"], audit["feed"], audit["network"]) == ("refuse", 2, "2026-11-20", False)
    assert audit["scanner"] == "shifter-xc example 1" and abs(audit["time"] - time.time()) < 60
    assert {row["reference"]: row["audit"] for row in site.ask(ANNA, "images")["images"]}["bad:1"] == "refuse"
    assert site.udi(BERT, "inspect", "bad:1").returncode == 3, "another user learns nothing"
    assert (site.near / f"images/{image_id}.report").read_bytes() == (
        site.store / f"images/{image_id}.report"
    ).read_bytes()
    assert (site.store / f"images/{image_id}.report").stat().st_mode & 0o777 == 0o400


def test_an_image_with_a_warning_and_one_without(site: Audited) -> None:
    image_id, _ = site.bring("warned", RELEASE, status(NEW + BASE_FILES))
    done = site.submit(ANNA, "warned:1")
    assert (done.returncode, done.stdout) == (0, f"{image_id}\n")
    assert done.stderr == (
        "qsub: warning: image warned:1 has 1 medium finding (CVE-2026-3001 in base-files 12, fixed in 999);"
        " udi inspect warned:1 lists what is known\n"
    )
    clean, said = site.bring("clean", RELEASE, status(NEW), uid=NOBODY)
    assert said == ""
    done = site.submit(NOBODY, "clean:1")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{clean}\n", "")
    assert "audit: clean: has no findings" in site.udi(NOBODY, "inspect", "clean:1").stdout


def test_the_inventory(site: Audited) -> None:
    """What scanners are shown of an image: links that lead elsewhere, hostile names, several managers."""
    apk = b"P:libcrypto3\nV:3.1.4-r5\no:openssl\n\n"
    image_id, _ = site.bring(
        "odd",
        file("usr/lib/os-release", b"ID=alpine\nVERSION_ID=3.19.1\n"),
        symlink("etc/os-release", "../usr/lib/os-release"),
        file("usr/share/db", apk),
        symlink("lib/apk/db/installed", "../../../usr/share/db"),
        symlink("var/lib/dpkg/status", "other"),
        symlink("var/lib/dpkg/other", "status"),
        directory("var/lib/dpkg/status.d"),
        file("var/lib/dpkg/status.d/zlib", ZLIB),
        hardlink("var/lib/dpkg/status.d/again", "var/lib/dpkg/status.d/zlib"),
        file("var/lib/dpkg/status.d/zlib.md5sums", b"x"),
        file("var/lib/rpm/rpmdb.sqlite", os.urandom(5000)),
        file("var/lib/rpm/Packages", b""),
        file("usr/bin/su", b"x", mode=0o4755),
        file(b"srv/a\xff\x1b[31m", b"x"),
    )
    with gzip.open(site.store / f"images/{image_id}.inventory") as stream:
        found = json.load(stream)
    assert found["distribution"] == {"id": "alpine", "version_id": "3.19.1"} and found["image"] == image_id
    assert [(each["manager"], each["name"]) for each in found["packages"]] == [
        ("apk", "libcrypto3"),
        ("dpkg", "zlib1g"),
    ]
    assert found["setid"] == ["/usr/bin/su"] and ["/srv/a\\xff\x1b[31m", "file", 0o644, 1] in found["files"]
    assert found["entries"] == len(found["files"])
    assert sorted(text.partition(": ")[0] for text in found["unread"]) == [
        "/var/lib/dpkg/status", "/var/lib/rpm/Packages", "/var/lib/rpm/rpmdb.sqlite"
    ]  # fmt: skip
    shown = site.udi(ANNA, "inspect", "odd:1").stdout
    assert "finding: high CVE-2026-2001 libcrypto3 3.1.4-r5 fixed in 3.1.4-r6" in shown
    assert "not scanned: /var/lib/rpm/rpmdb.sqlite: it is not an SQLite database" in shown


def test_a_real_debian(site: Audited) -> None:
    """What is installed on this machine, as dpkg and its distribution wrote it."""
    own = [
        file("etc/os-release", Path("/etc/os-release").read_bytes()),
        status(Path("/var/lib/dpkg/status").read_bytes()),
    ]
    site.bring("real", *own)
    form = ["dpkg-query", "-W", "-f", "${source:Package} ${db:Status-Status}\\n"]
    lines = subprocess.run(form, capture_output=True, text=True, check=True).stdout.splitlines()
    audit = site.ask(ANNA, "inspect", "real:1")["audit"]
    assert audit["packages"] == sum(line.endswith(" installed") for line in lines) and audit["unread"] == []
    found = {finding["package"] for finding in audit["findings"] if finding["id"] == "CVE-2026-1002"}
    assert "zlib1g" in found, "an advisory without a fix, of its source package"


def test_a_changed_feed_scans_again_without_reading_images(site: Audited) -> None:
    """The files of all images are gone, so that reading one would show."""
    image_id, _ = site.bring("again", RELEASE, status(ZLIB))
    assert site.submit(ANNA, "again:1").stderr == ""
    calls = site.calls.read_text().count("call")
    assert site.rescan() == [] and site.calls.read_text().count("call") == calls, "nothing has changed"
    site.change_feed(zlib="critical")
    moved = site.directory / "moved"
    moved.mkdir()
    images = [each for each in (site.store / "images").iterdir() if each.suffix == ".squashfs"]
    for each in images:
        each.rename(moved / each.name)
    try:
        found = {row["id"]: row for row in site.rescan()}
    finally:
        for each in images:
            (moved / each.name).rename(each)
        moved.rmdir()
    assert len(found) == len(images) and not any(row["was_read"] or row["error"] for row in found.values())
    assert (found[image_id]["before"], found[image_id]["after"]) == ("note", "refuse")
    refused = site.submit(ANNA, "again:1")
    assert refused.returncode == NotPermitted.exit_code and "1 critical finding (CVE-2026-1002" in refused.stderr
    assert site.rescan() == []
    assert site.udi(0, "images").returncode == 0


def test_a_job_that_was_accepted_runs_and_another_does_not(site: Audited) -> None:
    """What job hosts decide, from the store alone: ANNA submitted before the feed changed, NOBODY did not."""
    image_id, _ = site.bring("queued", RELEASE, status(ZLIB), file("q", b"q"), uid=NOBODY, public=True)
    assert site.submit(ANNA, "queued:1").returncode == 0
    site.change_feed(zlib="critical")
    site.rescan()
    names = {uid: account_of_uid(uid) for uid in (0, NOBODY)}
    reader = StoreLayout(str(site.store))
    assert os.path.exists(reader.report(image_id))
    with pytest.raises(NotPermitted, match="refuses for new jobs"):
        choose_image(site.site, job_request(site.site, "1", names[NOBODY], "queued:1", ""))
    pin = site.store / f"refs/id:{image_id}~{NOBODY}.json"
    shutil.copy(site.store / f"refs/id:{image_id}~{ANNA}.json", pin)
    pin.write_text(pin.read_text().replace(f"[{ANNA}]", f"[{NOBODY}]"))
    os.chown(pin, ACCOUNT, ACCOUNT)
    assert choose_image(site.site, job_request(site.site, "1", names[NOBODY], "queued:1", "")).facts.id == image_id
    pin.unlink()


@pytest.mark.parametrize(
    ("mode", "reason"), [("die", "exit code 3: the feed is damaged"), ("hang", "did not finish within 1 s")]
)
def test_a_scanner_that_fails_costs_no_image(site: Audited, mode: str, reason: str) -> None:
    site.mode.write_text(mode)
    image_id, said = site.bring(f"late-{mode}", RELEASE, status(OLD), file("mode", mode.encode()))
    assert "has not been scanned" in said and reason in said
    assert "warning" in site.submit(ANNA, f"late-{mode}:1").stderr
    row = next(row for row in site.rescan(code=6) if row["id"] == image_id)
    assert reason in str(row["error"]) and "could not be scanned" in site.said
    site.mode.write_text("")
    row = next(row for row in site.rescan() if row["id"] == image_id)
    assert (row["before"], row["after"], row["was_read"]) == ("warn", "refuse", False)


def test_a_failing_rescan_keeps_what_is_known(site: Audited) -> None:
    image_id, _ = site.bring("kept", RELEASE, status(OLD), file("k", b"k"))
    report = (site.store / f"images/{image_id}.report").read_bytes()
    site.mode.write_text("die")
    row = next(row for row in site.rescan("--all", code=6) if row["id"] == image_id)
    assert (row["before"], row["after"]) == ("refuse", "refuse") and row["error"]
    program = [sys.executable, "-c", "from gateway.service.cli import main; main()", "--config", str(site.config)]
    done = run_as(ACCOUNT, [*program, "rescan", "--all"])
    assert done.returncode == 6 and "could not be scanned" in done.stderr
    assert f"{image_id[:12]} not scanned: the scanner ended with exit code 3: the feed is damaged" in done.stdout
    assert (site.store / f"images/{image_id}.report").read_bytes() == report


def test_an_image_of_before_is_read_once(site: Audited) -> None:
    """By a site that had no scanner then."""
    text = site.config.read_text()
    site.stop()
    site.config.write_text(text.partition("[audit]")[0])
    site.start()
    try:
        image_id, said = site.bring("before", RELEASE, status(OLD), file("c", b"c"))
        assert said == "" and site.ask(ANNA, "inspect", "before:1")["audit"] is None
        assert not (site.store / f"images/{image_id}.report").exists()
    finally:
        site.stop()
        site.config.write_text(text)
        site.start()
    assert "has not been scanned" in site.submit(ANNA, "before:1").stderr
    row = next(row for row in site.rescan() if row["id"] == image_id)
    assert (row["after"], row["was_read"], row["error"]) == ("refuse", True, "")
    assert site.rescan() == []


def test_all_goes_with_the_image(site: Audited) -> None:
    image_id, _ = site.bring("gone", RELEASE, status(NEW), file("g", b"g"))
    kinds = {each.name.partition(".")[2] for each in (site.store / "images").glob(f"{image_id}.*")}
    assert kinds == {"squashfs", "json", "report", "inventory"}
    site.ask(ANNA, "rm", "gone:1")
    assert not list((site.store / "images").glob(f"{image_id}.*"))
    site.bring("other", RELEASE, file("o", b"o"))
    assert not list((site.near / "images").glob(f"{image_id}.*"))
    assert client.status(site.site).images == len(list((site.store / "images").glob("*.squashfs")))
