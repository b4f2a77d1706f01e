"""What stays in the store and what goes: groups, pins of queued jobs, expire, the history and its rebuilding."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from admin.seams.jobs import Jobs
from admin.status.lines import lines
from admin.status.status import read_status
from gateway.client import client
from gateway.wire.messages import Found, Remove
from tests.gateway.service import ACCOUNT, ANNA, BERT, NOBODY, Service, run_as, until
from tests.gateway.test_processes import archive, pull
from udi.facts import Ref
from udi.reference import ImageReference
from udi.store import StoreLayout, StoreReader
from udiroot.errors import NotFound

DAY = 86400
GROUP = 12345


def operator(service: Service, *words: str, settings: str = "") -> subprocess.CompletedProcess[str]:
    """`udi-gateway` as the store's account, with further settings."""
    path = service.directory / "operator.toml"
    path.write_text(service.config.read_text().replace("publishers =", f"{settings}\npublishers ="))
    path.chmod(0o644)
    program = [sys.executable, "-c", "from gateway.service.cli import main; main()", "--config", str(path), *words]
    return run_as(ACCOUNT, program)


def bring(service: Service, name: str, uid: int = 0, size: int = 1000) -> str:
    path, image_id = archive(service, name.replace("/", "-"), size)
    service.ask(uid, "pull", f"docker-archive:{path}", f"{name}:1")
    return image_id


def unused_for(service: Service, image_id: str, days: float) -> None:
    facts = service.store / "images" / f"{image_id}.json"
    then = time.time() - days * DAY
    os.utime(facts, (then, then))
    for path in (service.store / "refs").iterdir():
        ref = Ref.from_json(path.read_text())
        if ref.id == image_id:
            text = json.loads(path.read_text()) | {"used": int(then), "created": int(then)}
            path.chmod(0o600)
            path.write_text(json.dumps(text))
            path.chmod(0o400)


def image_files(service: Service) -> set[str]:
    return {name.partition(".")[0] for name in service.files()}


# Groups


def test_an_image_for_a_group(service: Service) -> None:
    """The gateway's account database says who is in the group; daemon is in its own."""
    path, image_id = archive(service, "grouped")
    refused = service.udi(ANNA, "pull", "--group", "daemon", f"docker-archive:{path}", "grouped:1")
    assert refused.returncode == 4 and "not in group" in refused.stderr
    assert service.udi(ANNA, "pull", "--group", "nosuch", f"docker-archive:{path}", "x:1").returncode == 3
    service.ask(1, "pull", "--group", "daemon", f"docker-archive:{path}", "grouped:1")
    layout, reference = StoreLayout(str(service.store)), ImageReference.parse("grouped:1")
    assert StoreReader(layout, 77, (5, 1)).resolve(reference) == image_id
    assert StoreReader(layout, 77, (5, 1)).facts(ImageReference(id=image_id)).id == image_id
    for stranger in (StoreReader(layout, 77, (5,)), StoreReader(layout, 77)):
        with pytest.raises(NotFound):
            stranger.resolve(reference)
        with pytest.raises(NotFound):
            stranger.facts(ImageReference(id=image_id))
    assert (service.store / "images" / f"{image_id}.squashfs").stat().st_mode & 0o777 == 0o400
    row = next(row for row in service.ask(1, "images")["images"] if row["reference"] == "grouped:1")
    assert row["groups"] == [1] and not row["public"]
    service.ask(1, "rm", "grouped:1")


def test_nobody_shadows_a_public_name_for_a_group(service: Service) -> None:
    public, _ = archive(service, "shadow-public"), None
    shadow = archive(service, "shadow-group")
    service.ask(NOBODY, "pull", "--public", f"docker-archive:{public[0]}", "shadow:1")
    service.ask(1, "pull", "--group", "daemon", f"docker-archive:{shadow[0]}", "shadow:1")
    layout = StoreLayout(str(service.store))
    assert StoreReader(layout, 77, (1,)).resolve(ImageReference.parse("shadow:1")) == public[1]
    assert StoreReader(layout, 1, (1,)).resolve(ImageReference.parse("shadow:1")) == shadow[1]
    service.ask(1, "rm", "shadow:1")
    service.ask(NOBODY, "rm", "shadow:1")


# Pins


def test_the_image_of_a_queued_job_stays_when_its_tag_moves(service: Service) -> None:
    (first, first_id), (second, second_id) = archive(service, "moves1"), archive(service, "moves2")
    service.ask(NOBODY, "pull", "--public", f"docker-archive:{first}", "moves:1")
    assert service.python(ANNA, "print(client.submit(site, 'moves:1', within=10).id)").stdout == f"{first_id}\n"
    service.ask(NOBODY, "pull", "--public", f"docker-archive:{second}", "moves:1")
    layout = StoreLayout(str(service.store))
    assert StoreReader(layout, ANNA).facts(ImageReference(id=first_id)).id == first_id, "anna's job still gets it"
    with pytest.raises(NotFound):
        StoreReader(layout, BERT).facts(ImageReference(id=first_id))
    assert "id:" not in " ".join(service.names(ANNA)), "a pin is no name"
    assert json.loads(operator(service, "expire", "--json", settings="keep_days = 1").stdout) == {"expired": []}
    unused_for(service, first_id, 40)
    assert operator(service, "expire").returncode == 0
    assert first_id not in image_files(service), "no job waits for so long"
    assert service.ask(BERT, "lookup", "moves:1")["id"] == second_id
    service.ask(NOBODY, "rm", "moves:1")


def test_a_removed_image_is_gone_for_all(service: Service) -> None:
    image_id = bring(service, "pinned/away", uid=0)
    assert client.submit(service.site, "pinned/away:1", within=10) == Found(reference="pinned/away:1", id=image_id)
    service.ask(0, "rm", "pinned/away:1")
    assert image_id not in image_files(service)
    with pytest.raises(NotFound):
        client.lookup(service.site, f"id:{image_id}")


# Expire


def test_expire_by_age(service: Service) -> None:
    old, young = bring(service, "age/old", ANNA), bring(service, "age/young", ANNA)
    unused_for(service, old, 31)
    unused_for(service, young, 29)
    told = operator(service, "expire", "--dry-run", settings="keep_days = 30")
    assert told.stdout == f"would remove {old[:12]} (age/old:1): age\n"
    assert old in image_files(service)
    gone = json.loads(operator(service, "expire", "--json", settings="keep_days = 30").stdout)["expired"]
    assert [(image["id"], image["references"], image["reason"]) for image in gone] == [(old, ["age/old:1"], "age")]
    assert old not in image_files(service) and young in image_files(service)
    assert "age/old:1" not in service.names(ANNA)
    service.ask(ANNA, "rm", "age/young:1")


def test_use_by_a_job_keeps_an_image(service: Service) -> None:
    image_id = bring(service, "age/used", 0)
    unused_for(service, image_id, 100)
    os.utime(service.store / "images" / f"{image_id}.json")  # what the prologue does
    assert operator(service, "expire", settings="keep_days = 30").stdout == ""
    unused_for(service, image_id, 100)
    plan = service.store / "plans" / "7.x"
    plan.write_text(f"image squashfs /x/{image_id}.squashfs {image_id}\n")
    os.chown(plan, ACCOUNT, ACCOUNT)
    assert operator(service, "expire", settings="keep_days = 30").stdout == "", "its job runs for a hundred days"
    plan.unlink()
    assert client.submit(service.site, "age/used:1", within=10) == Found(reference="age/used:1", id=image_id)
    assert operator(service, "expire", settings="keep_days = 30").stdout == "", "a job was just submitted"
    service.ask(0, "rm", "age/used:1")


def test_expire_by_size_takes_the_one_unused_longest(service: Service) -> None:
    ids = [bring(service, f"size/{n}", ANNA, size=300_000) for n in range(3)]
    for days, image_id in zip((1, 3, 2), ids, strict=True):
        unused_for(service, image_id, days)
    total = sum(path.stat().st_blocks * 512 for path in (service.store / "images").glob("*.squashfs"))
    gone = operator(service, "expire", "--json", settings=f"keep_bytes = {total - 1000}")
    assert [image["id"] for image in json.loads(gone.stdout)["expired"]] == [ids[1]]
    for n in (0, 2):
        service.ask(ANNA, "rm", f"size/{n}:1")


# Queue and history


def test_status_tells_queue_store_and_errors(service: Service) -> None:
    path, _ = archive(service, "status")
    service.fault("wait")
    found: list[object] = []
    thread = threading.Thread(target=pull, args=(service, path, "status:1", found))
    thread.start()
    until(lambda: client.status(service.site).queue)
    entry = client.status(service.site).queue[0]
    assert (entry.uid, entry.reference) == (0, "status:1")
    service.fault("")
    thread.join(30)
    service.udi(ANNA, "pull", f"docker-archive:{path}", "status:1")
    answer = client.status(service.site)
    assert answer.queue == ()
    assert answer.images >= 1 and answer.bytes > 0
    status = read_status(service.site, Jobs())
    assert f"store: {answer.images} image" in "\n".join(lines(status))
    assert json.loads(status.as_json())["gateway"]["images"] == answer.images
    refused = service.python(ANNA, "client.status(site)")
    assert "only root may see" in refused.stderr


@pytest.mark.parametrize("damage", ["gone", "junk", "cut", "emptied", "no table"])
def test_a_history_that_is_lost_or_broken_is_made_anew(service: Service, damage: str) -> None:
    """While the service runs; the store is the truth, so that nothing else is lost."""
    bring(service, f"history/{damage.replace(' ', '')}", ANNA)
    path = service.own / "state/history.sqlite"
    if damage == "gone":
        path.unlink()
    elif damage == "no table":
        with sqlite3.connect(path) as base:
            base.execute("DROP TABLE pulls")
        base.close()
    else:
        data = path.read_bytes()
        path.write_bytes({"junk": b"junk" * 5000, "cut": data[:5000], "emptied": b""}[damage])
    names = service.names(ANNA)
    image_file, image_id = archive(service, f"after-{damage.replace(' ', '')}")
    found: list[object] = []
    for _ in range(2):  # one may be told that it was broken
        pull(service, image_file, "after:1", found)
        if found[-1] == image_id:
            break
    assert found[-1] == image_id, found
    assert service.names(ANNA) == names
    with sqlite3.connect(path) as base:
        rows = {row[0] for row in base.execute("SELECT reference FROM pulls")}
    base.close()
    assert names <= rows


def test_rebuild(service: Service) -> None:
    bring(service, "rebuilt/one", ANNA)
    done = operator(service, "rebuild")
    assert done.returncode == 0
    assert int(done.stdout.split()[0]) >= 1
    assert (service.own / "state/history.sqlite.broken").exists()
    assert bring(service, "rebuilt/two", ANNA)
    assert client.status(service.site).errors == ()


def test_a_full_disk_is_told_and_does_not_stay(service: Service) -> None:
    """The state's disk, where copies of what users hand over are made."""
    state = service.own / "state"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=1m,uid={ACCOUNT},mode=700", "tmpfs", state], check=True)
    service.stop()
    try:
        service.start()
        path, image_id = archive(service, "full", 3_000_000)
        failed = service.udi(ANNA, "pull", f"docker-archive:{path}", "full:1")
        assert failed.returncode == 6
        assert "no space left" in failed.stderr
        assert image_id not in image_files(service)
    finally:
        service.stop()
        subprocess.run(["umount", "-l", state], check=True)
        service.start()
    assert service.ask(ANNA, "pull", f"docker-archive:{path}", "full:1")["id"] == image_id


def test_a_damaged_reference_costs_no_other(service: Service) -> None:
    """It is named, its image stays until somebody knows better, and pulling the name again mends it."""
    hurt_id, whole_id = bring(service, "hurt"), bring(service, "whole")
    path = service.store / "refs/hurt:1~0.json"
    path.write_text("")
    assert "whole:1" in service.names(0) and "hurt:1" not in service.names(0)
    looked_up = service.udi(0, "lookup", "hurt:1").stderr.splitlines()
    assert looked_up[0].startswith(f"udi: image store: {path} is damaged: ")
    assert looked_up[1] == "hint: pull it again"
    service.stop()
    service.start()
    client.ask(service.site, Remove(reference=ImageReference.parse("whole:1")))
    assert {hurt_id, whole_id} <= image_files(service), "one of them may be what it stood for"
    assert service.log.read_text().count(f"WARNING gateway.store: {path} is damaged: ") == 1
    found: list[object] = []
    pull(service, str(service.directory / "hurt.tar"), "hurt:1", found)
    assert found == [hurt_id] and client.lookup(service.site, "hurt:1") == hurt_id
    client.ask(service.site, Remove(reference=ImageReference.parse("hurt:1")))
    assert image_files(service).isdisjoint({hurt_id, whole_id})
