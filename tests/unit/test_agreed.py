"""All nodes of a job that was not pinned at submission get the image that the first of them found."""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

import jobs.image
from jobs.agreed import Agreement, forget
from jobs.image import Choice, choose_image
from jobs.local import LocalJob
from tests.unit.cray_standins import IMAGE_ID, OTHER_ID, StandIns
from udi.accounts import account_of
from udi.command import Deadline
from udi.nodes import NodeSlots, named
from udi.request import JobRequest, Pin, job_request
from udi.store import StoreLayout
from udi.values import replace
from udiroot.errors import ImageInvalid, NotFound, SetupFailed, UdiError, UpstreamFailed
from udiroot.report import NodeReport

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the store must be read with the account's rights")
JOB = "77"


@pytest.fixture
def store(tmp_path: Path) -> StandIns:
    """debian:12 is an image, and so is other:1."""
    made = StandIns(tmp_path)
    made.add_image("other:1", OTHER_ID)
    return made


def request(store: StandIns, image: str = "debian:12", pin: Pin | None = None, user: str = "daemon") -> JobRequest:
    return job_request(store.site, JOB, account_of(user), image, pin=pin)


def chosen(store: StandIns, node: str, asked: JobRequest | None = None, start: int = 0, cluster: str = "c") -> Choice:
    """What a node finds for the job."""
    return choose_image(store.site, asked or request(store), agreement=Agreement(cluster, start, node))


def test_a_name_that_moves_between_two_nodes(store: StandIns) -> None:
    first = chosen(store, "n1")
    store.add_ref("debian:12", OTHER_ID)
    second = chosen(store, "n2")
    assert (first.facts.id, second.facts.id) == (IMAGE_ID, IMAGE_ID) and first.agreed == second.agreed
    assert [Path(store.store, "plans", name).read_text() for name in store.plans()] == [f"{IMAGE_ID}\n"]
    assert chosen(store, "n1", start=1).facts.id == OTHER_ID, "another start looks again"
    forget(store.site, first.agreed, "n2")
    assert chosen(store, "n3").facts.id == OTHER_ID
    assert len(store.plans()) == 2


def test_a_name_that_goes_between_two_nodes(store: StandIns) -> None:
    chosen(store, "n1")
    os.unlink(StoreLayout(str(store.store)).ref(request(store).reference, None))
    assert chosen(store, "n2").facts.id == IMAGE_ID
    with pytest.raises(NotFound):
        chosen(store, "n2", start=1)
    assert len(store.plans()) == 1


@pytest.mark.parametrize("more", [{"cluster": "d"}, {"user": "bin"}, {"image": "other:1"}])
def test_what_is_no_other_jobs(store: StandIns, more: dict[str, str]) -> None:
    """Clusters that share a store number their jobs each from 1 on."""
    chosen(store, "n1")
    store.add_ref("debian:12", OTHER_ID)
    asked = request(store, more.get("image", "debian:12"), user=more.get("user", "daemon"))
    assert chosen(store, "n1", asked, cluster=more.get("cluster", "c")).facts.id == OTHER_ID


def test_the_image_of_the_job_is_gone(store: StandIns) -> None:
    """No node takes another one; the site's error sends the job back."""
    chosen(store, "n1")
    store.add_ref("debian:12", OTHER_ID)
    os.unlink(StoreLayout(str(store.store)).facts(IMAGE_ID))
    with pytest.raises(
        UpstreamFailed, match=f"image {IMAGE_ID}, which debian:12 meant on the job's first node, cannot"
    ):
        chosen(store, "n2")


def test_who_needs_no_agreement(store: StandIns) -> None:
    digest = f"debian@sha256:{'0' * 64}"
    store.add_ref(digest, IMAGE_ID)
    for asked in (
        request(store, f"id:{IMAGE_ID}"),
        request(store, digest),
        request(store, pin=Pin(request(store).reference, IMAGE_ID)),
    ):
        assert chosen(store, "n1", asked).agreed == ""
    assert store.plans() == []
    lost = request(store, pin=Pin(request(store).reference, "ef" * 32))
    assert chosen(store, "n1", lost).agreed
    store.add_ref("debian:12", OTHER_ID)
    found = chosen(store, "n2", lost)
    assert found.facts.id == IMAGE_ID and "pinned" in found.notice


def test_a_node_that_refuses_the_image_leaves_nothing(store: StandIns) -> None:
    os.unlink(StoreLayout(str(store.store)).image(IMAGE_ID, "squashfs"))
    with pytest.raises(ImageInvalid):
        chosen(store, "n1")
    assert store.plans() == []


def test_nodes_that_look_at_once(store: StandIns) -> None:
    path = f"{store.store}/plans/{JOB}.0.{'0' * 16}"
    ids = [f"{number:064x}" for number in range(64)]

    def first(number: int) -> str:
        from jobs.agreed import _first

        return _first(path, ids[number], f"n{number}")

    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(first, range(64)))
    assert found == {Path(path).read_text().strip()} and len(store.plans()) == 1


def test_what_an_earlier_job_of_the_number_left(store: StandIns) -> None:
    path = Path(chosen(store, "n1").agreed)
    store.add_ref("debian:12", OTHER_ID)
    old = time.time() - 31 * 24 * 3600
    os.utime(path, (old, old))
    assert chosen(store, "n1").facts.id == OTHER_ID


def test_what_is_no_id(store: StandIns) -> None:
    path = Path(chosen(store, "n1").agreed)
    path.chmod(0o600)
    path.write_text("x\n")
    with pytest.raises(UpstreamFailed, match="not the id of an image"):
        chosen(store, "n2")


def test_a_store_that_takes_nothing(store: StandIns, caplog: pytest.LogCaptureFixture) -> None:
    (store.store / "plans").rmdir()
    (store.store / "plans").write_text("a file")
    with pytest.raises(UdiError, match=r"image store .*: not a directory"):
        chosen(store, "n1")
    forget(store.site, f"{store.store}/plans/x", "n1")
    assert "cannot be removed, and keeps its image in the store: not a directory" in caplog.text
    assert choose_image(store.site, request(store)).facts.id == IMAGE_ID, "a machine that looks once needs none"


def _mount(*words: str | Path) -> None:
    subprocess.run(["/bin/mount", *words], check=True, timeout=30)


def test_nodes_that_may_only_read_the_store(store: StandIns, caplog: pytest.LogCaptureFixture) -> None:
    """Their jobs run as before, and the log says what cannot be promised; what one node did write counts for all."""
    plans = store.store / "plans"
    plans.mkdir(exist_ok=True)
    _mount("--bind", plans, plans)
    try:
        _mount("-o", "remount,bind,ro", plans)
        found = chosen(store, "n1")
        assert (found.facts.id, found.agreed) == (IMAGE_ID, "")
        assert f"the job's other nodes are not told its image {IMAGE_ID}, for debian:12: read-only" in caplog.text
        _mount("-o", "remount,bind,rw", plans)
        chosen(store, "n1")
        _mount("-o", "remount,bind,ro", plans)
        store.add_ref("debian:12", OTHER_ID)
        assert chosen(store, "n2").facts.id == IMAGE_ID
    finally:
        subprocess.run(["/bin/umount", plans], check=True, timeout=30)


def _on_a_node(store: StandIns) -> LocalJob:
    """The job there."""
    node = replace(store.site.node, root=f"{store.directory}/var", run=f"{store.directory}/run")
    (store.directory / "run").mkdir(exist_ok=True)
    return LocalJob(replace(store.site, node=node), JOB)


def test_a_node_is_killed_when_it_has_said_which_image(store: StandIns) -> None:
    """Whoever takes the job down there knows of that."""
    job, nodes = _on_a_node(store), (NodeSlots(named("n1"), 1),)
    child = os.fork()
    if not child:
        try:
            jobs.image._require_file = lambda *_: os._exit(9)
            job.prepare(request(store), nodes, "n1", Deadline(60), Agreement("c", 0, "n1"))
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(store.plans()) == 1
    job.take_down(Deadline(60))
    assert store.plans() == [] and list((store.directory / "run").iterdir()) == []


def test_a_node_that_finds_no_image_leaves_nothing(store: StandIns) -> None:
    job, nodes = _on_a_node(store), (NodeSlots(named("n1"), 1),)
    with pytest.raises(NotFound):
        job.prepare(request(store, "gone:1"), nodes, "n1", Deadline(60), Agreement("c", 0, "n1"))
    assert store.plans() == [] and list((store.directory / "run").iterdir()) == []


@pytest.mark.parametrize("fails", [True, False])
def test_a_node_remembers_what_was_agreed_upon(store: StandIns, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """Until the job is taken down there; a set-up that fails is undone at once."""

    def set_up(self: LocalJob, plan: object) -> NodeReport:
        if fails:
            raise SetupFailed("no loop device")
        return NodeReport("n1", 0, 5, "")

    monkeypatch.setattr(LocalJob, "_set_up", set_up)
    monkeypatch.setattr(LocalJob, "_label", lambda self: "udi:77:1:made")
    job = _on_a_node(store)
    nodes = tuple(NodeSlots(named(name), 1) for name in ("n1", "n2"))
    prepare = partial(job.prepare, request(store), nodes, "n1", Deadline(60), Agreement("c", 0, "n1"))
    if fails:
        with pytest.raises(SetupFailed, match="no loop device"):
            prepare()
    else:
        assert prepare().image_id == IMAGE_ID and len(store.plans()) == 1
        assert chosen(store, "n2").agreed.endswith(store.plans()[0])
        job.take_down(Deadline(60))
    assert store.plans() == [] and not list((store.directory / "run").glob("*.down"))


def test_a_node_that_can_keep_nothing(store: StandIns) -> None:
    """Its start fails, and the store keeps nothing of it either."""
    (store.directory / "run").write_text("a file")
    node = replace(store.site.node, root=f"{store.directory}/var", run=f"{store.directory}/run")
    job, nodes = LocalJob(replace(store.site, node=node), JOB), (NodeSlots(named("n1"), 1),)
    with pytest.raises(UdiError, match="not a directory"):
        job.prepare(request(store), nodes, "n1", Deadline(60), Agreement("c", 0, "n1"))
    assert store.plans() == []
