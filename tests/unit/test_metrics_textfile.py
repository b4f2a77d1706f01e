"""The textfile of the hooks: complete at every moment, no count lost between processes, and never a job's trouble."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import metrics
from nodehealth import records
from nodehealth.records import count_dirty, dirty_nodes, record
from tests.metrics.samples import samples as of_text
from udi import textfile
from udi.config import SiteConfig, parse
from udi.metrics import CAUSES, Family, Tally, blame
from udi.nodes import named
from udi.textfile import Textfile
from udiroot.errors import NotPermitted, SetupFailed, TimedOut, UdiError

PROCESSES, EACH = 8, 25


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    for name in ("prom", "spool"):
        (tmp_path / name).mkdir()
    return parse(
        f'store.path = "/s"\njobs.state = "{tmp_path}/spool/jobs"\njobs.nodes = "{tmp_path}/spool/nodes"\n'
        f'metrics.directory = "{tmp_path}/prom"\n',
        "udi.toml",
    )


def file_of(site: SiteConfig) -> Path:
    return Path(site.metrics.directory) / metrics.FILE


def samples(path: Path) -> dict[tuple[str, ...], float]:
    """Name and label values → value, of a file."""
    return of_text(path.read_text())


def hook(site: SiteConfig, outcome: metrics.Outcome = "ready", seconds: tuple[float, ...] = (0.2, 4.0)) -> None:
    """What one hook counts and writes."""
    metrics.start_metrics(site)
    metrics.started(outcome)
    metrics.observe(metrics.NODE_SETUP, seconds)
    metrics.publish(site)


def test_the_file_is_what_prometheus_reads(site: SiteConfig) -> None:
    metrics.start_metrics(site)
    metrics.started("held")
    metrics.failed("start", SetupFailed("no disk"))
    metrics.observe(metrics.NODE_SETUP, [0.1, 0.15, 4.0, 100.0])
    record(site, "1.sdb", {named("nid00012"): "why"}, 1)
    record(site, "1.sdb", {named("nid00013"): "why", named("nid00014"): "why"}, 1, in_service=True)
    metrics.publish(site)
    found = samples(file_of(site))
    assert found["udi_job_starts_total", "held"] == 1
    assert found["udi_job_starts_total", "ready"] == 0
    assert found["udi_job_failures_total", "start", "setup_failed", "node"] == 1
    buckets = {key[1]: value for key, value in found.items() if key[0] == "udi_node_setup_seconds_bucket"}
    assert (buckets["0.1"], buckets["0.2"], buckets["3"], buckets["5"], buckets["+Inf"]) == (1, 2, 2, 3, 4)
    assert found["udi_node_setup_seconds_count",] == 4
    assert found["udi_node_setup_seconds_sum",] == pytest.approx(104.25)
    assert found["udi_dirty_nodes", "out_of_service"] == 1
    assert found["udi_dirty_nodes", "in_service"] == 2
    assert stat.S_IMODE(file_of(site).stat().st_mode) == 0o644
    assert len(found) == sum(len(list(family.samples())) for family in metrics.FAMILIES)


def test_dirty_nodes_are_counted_as_they_are_read_and_none_is_taken_apart(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reason cannot look like the key; a damaged record is one of a node out of service; thousands delay no job."""
    record(site, "1.sdb", {named("nid00001"): '"in_service": true'}, 1)
    record(site, "1.sdb", {named("nid00002"): "why"}, 1, in_service=True)
    nodes = Path(site.jobs.nodes)
    (nodes / "nid00003.json").write_text("{damaged")
    (nodes / "nid00004.json").mkdir()
    (nodes / ".new-0123456789abcdef").write_text("{}")
    left = [dirty.in_service for dirty in dirty_nodes(site)]
    assert count_dirty(site) == (left.count(False), left.count(True)) == (3, 1)
    text = (nodes / "nid00002.json").read_text()
    for number in range(1000, 3000):
        (nodes / f"nid{number:05d}.json").write_text(text)
    monkeypatch.delattr(records, "read_record")
    assert count_dirty(site) == (3, 2001)


def _many_hooks(site: SiteConfig) -> None:
    for _ in range(EACH):
        hook(site)


def test_concurrent_hooks_lose_no_count_and_show_no_half_of_a_file(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(textfile, "_LOCK_SECONDS", 600)  # where a machine is so slow that a hook would rather go on
    hook(site)
    workers = [multiprocessing.Process(target=_many_hooks, args=(site,)) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    last = 0.0
    while any(worker.is_alive() for worker in workers):
        found = samples(file_of(site))
        assert found["udi_job_starts_total", "ready"] >= last
        assert 2 * found["udi_job_starts_total", "ready"] == found["udi_node_setup_seconds_count",]
        last = found["udi_job_starts_total", "ready"]
    for worker in workers:
        worker.join()
    assert samples(file_of(site))["udi_job_starts_total", "ready"] == PROCESSES * EACH + 1
    assert os.listdir(site.metrics.directory) == [metrics.FILE]


def test_a_killed_hook_leaves_the_file_as_it_was_or_as_it_would_be(site: SiteConfig) -> None:
    hook(site)
    for number in range(20):
        before = samples(file_of(site))["udi_job_starts_total", "ready"]
        worker = multiprocessing.Process(target=_many_hooks, args=(site,))
        worker.start()
        time.sleep(0.002 + 0.001 * number)
        assert worker.pid
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        found = samples(file_of(site))
        assert before <= found["udi_job_starts_total", "ready"] <= before + EACH
        assert 2 * found["udi_job_starts_total", "ready"] == found["udi_node_setup_seconds_count",]
    hook(site)
    assert os.listdir(site.metrics.directory) == [metrics.FILE]


def test_a_lock_that_others_keep_costs_a_second_and_one_line(
    site: SiteConfig, caplog: pytest.LogCaptureFixture
) -> None:
    hook(site)
    with open(Path(site.jobs.state).parent / "metrics.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began = time.monotonic()
        hook(site)
        assert time.monotonic() - began < 30
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "was held by others for 1 s" in caplog.text
    hook(site)
    assert samples(file_of(site))["udi_job_starts_total", "ready"] == 2


def test_a_full_disk_costs_one_line_and_leaves_the_file(
    site: SiteConfig, small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook(site)
    before = file_of(site).read_text()
    filler = small / "filler"
    with filler.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space"):
        while True:
            stream.write(b"\0" * 4096)
    hook(site)
    assert "No space left on device" in caplog.text
    assert len(caplog.records) == 1
    assert file_of(site).read_text() == before
    filler.unlink()
    hook(site)
    assert samples(file_of(site))["udi_job_starts_total", "ready"] == 2


@pytest.fixture
def small(site: SiteConfig) -> object:
    """The directory of the textfile as a file system of its own with room for a few files."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    directory = Path(site.metrics.directory)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "small", directory], check=True, timeout=60)
    yield directory
    subprocess.run(["umount", directory], check=True, timeout=60)


@pytest.mark.parametrize("missing", ["prom", "spool"])
def test_no_directory_costs_one_line(site: SiteConfig, missing: str, caplog: pytest.LogCaptureFixture) -> None:
    """That of the textfile is the site's to make; the one of the lock is ours, and is made."""
    (Path(site.metrics.directory).parent / missing).rmdir()
    hook(site)
    assert len(caplog.records) == (missing == "prom")
    assert file_of(site).exists() == (missing == "spool")


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "garbage", "huge", "unknown"])
def test_whatever_is_in_its_place_is_not_believed(site: SiteConfig, tmp_path: Path, kind: str) -> None:
    """Another account may be able to write the directory. A link is replaced, and not followed."""
    path, target = file_of(site), tmp_path / "target"
    target.write_text('udi_job_starts_total{outcome="ready"} 7\n')
    if kind == "link":
        path.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        lines = {
            "garbage": 'udi_job_starts_total{outcome="ready"} nan\nudi_job_starts_total{outcome="held"} -1\n\xff x\n',
            "huge": 'udi_job_starts_total{outcome="ready"} 7\n' + "# \n" * (1 << 19),
            "unknown": 'udi_job_starts_total{outcome="won"} 7\nother 3\nudi_dirty_nodes{state="in_service"} 9\n',
        }
        path.write_text(lines[kind])
    hook(site)
    if kind == "directory":
        assert path.is_dir()  # rename(2) replaces no directory by a file; the site sees it in the log
        return
    found = samples(path)
    assert found["udi_job_starts_total", "ready"] == 1
    assert found["udi_job_starts_total", "held"] == 0
    assert found["udi_dirty_nodes", "in_service"] == 0
    assert {name for name, *_ in found} == {name for name, *_ in samples_of_new(site, tmp_path)}
    assert target.read_text() == 'udi_job_starts_total{outcome="ready"} 7\n'


def samples_of_new(site: SiteConfig, tmp_path: Path) -> dict[tuple[str, ...], float]:
    """The samples of a file in which nothing was counted."""
    Textfile(f"{tmp_path}/new.prom", f"{tmp_path}/lock", metrics.FAMILIES).add({}, {})
    return samples(tmp_path / "new.prom")


def test_where_metrics_are_off_nothing_is_counted_written_or_imported() -> None:
    code = (
        "import sys\nfrom jobs import metrics\nfrom udi.config import parse\nsite = parse('store.path = \"/s\"', 'x')\n"
        "def times():\n    raise AssertionError\n    yield\n"
        "metrics.start_metrics(site)\nmetrics.started('ready')\nmetrics.observe(metrics.NODE_SETUP, times())\n"
        "metrics.publish(site)\n"
        "print(*(name for name in sys.modules if name.startswith(('prometheus', 'udi.textfile'))))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_with_native_slurm_slurm_knows_the_nodes(site: SiteConfig) -> None:
    metrics.start_metrics(site)
    metrics.publish(site, has_records=False)
    assert not any(name == "udi_dirty_nodes" for name, *_ in samples(file_of(site)))


@given(st.lists(st.floats(0, 400), max_size=200))
def test_buckets_are_those_of_one_observation_after_the_other(measured: list[float]) -> None:
    family = Family("x_seconds", "histogram", "X.", buckets=(0.1, 1, 60))
    tally = Tally()
    tally.observe(family, measured)
    for bound in (*family.buckets, float("inf")):
        label = "+Inf" if bound == float("inf") else f"{bound:g}"
        assert tally.samples[f'x_seconds_bucket{{le="{label}"}}'] == sum(value <= bound for value in measured)
    assert tally.samples["x_seconds_count"] == len(measured)


def test_every_error_has_a_cause_and_an_owner() -> None:
    own = {kind for kind in UdiError.__subclasses__() if kind.__module__ == "udiroot.errors"}
    assert set(CAUSES) == own
    assert {blame(kind("x")) for kind in own} == {(cause, kind.owner) for kind, cause in CAUSES.items()}

    class Unsigned(NotPermitted):
        pass

    assert blame(Unsigned("x")) == ("not_permitted", "user")
    assert blame(TimedOut("x")) == ("timed_out", "site")
    assert blame(ZeroDivisionError()) == ("upstream_failed", "site")
