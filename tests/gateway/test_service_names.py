"""The service between accounts: who sees an image and opens its file, what names stand for, and who removes them."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from gateway.client import client
from tests.gateway.archives import (
    BASE,
    Entry,
    file,
    make_archive,
    make_oci_layout,
    opaque,
    whiteout,
)
from tests.gateway.service import (
    ACCOUNT,
    ANNA,
    BERT,
    NOBODY,
    Service,
    fresh,
    mode_of,
    run_as,
)
from udiroot.errors import NotFound


def test_an_image_of_an_archive_is_its_pullers_alone(service: Service) -> None:
    path, image_id = fresh(service, "private/app:2")
    answer = service.ask(ANNA, "pull", f"docker-archive:{path}")
    assert answer == {
        "reference": "private/app:2",
        "id": image_id,
        "troubles": [],
        "format": "squashfs",
        "warnings": [],
    }
    assert "private/app:2" in service.names(ANNA)
    assert "private/app:2" not in service.names(BERT) | service.names(0)
    for words in (["lookup", "private/app:2"], ["inspect", f"id:{image_id}"], ["rm", "private/app:2"]):
        refused = service.udi(BERT, *words)
        assert refused.returncode == NotFound.exit_code
        assert "not found, or you do not have access to it" in refused.stderr
    image = service.store / "images" / f"{image_id}.squashfs"
    assert mode_of(image) == mode_of(image.with_suffix(".json")) == 0o400
    assert image.stat().st_uid == ACCOUNT
    assert service.ask(ANNA, "inspect", "private/app:2")["facts"]["size"] == image.stat().st_size


def test_lookup_prints_the_id_and_so_does_the_function(service: Service) -> None:
    path, image_id = fresh(service)
    service.ask(0, "pull", f"docker-archive:{path}", "looked/up:1")
    assert service.udi(0, "lookup", "looked/up:1").stdout == f"{image_id}\n"
    assert client.lookup(service.site, "looked/up:1") == image_id
    with pytest.raises(NotFound):
        client.lookup(service.site, "looked/up:2")


def test_only_publishers_make_images_public(service: Service) -> None:
    path, image_id = fresh(service)
    image = service.store / "images" / f"{image_id}.squashfs"
    assert service.udi(ANNA, "pull", "--public", f"docker-archive:{path}", "pub:1").returncode == 4
    assert not image.exists()
    service.ask(ANNA, "pull", f"docker-archive:{path}", "mine:1")
    assert mode_of(image) == 0o400
    service.ask(NOBODY, "pull", "--public", f"docker-archive:{path}", "pub:1")
    assert mode_of(image) == mode_of(image.with_suffix(".json")) == 0o444
    assert service.ask(BERT, "lookup", "pub:1")["id"] == image_id
    assert service.udi(BERT, "rm", "pub:1").returncode == 4
    service.ask(NOBODY, "rm", "pub:1")
    assert mode_of(image) == 0o400, "anna's name still holds it, and it is hers alone"
    service.ask(ANNA, "rm", "mine:1")
    assert not image.exists()
    assert not image.with_suffix(".json").exists()


def test_two_tags_of_one_image_and_removal_that_counts_references(service: Service) -> None:
    path, image_id = fresh(service)
    for name in ("two:1", "two:2"):
        service.ask(ANNA, "pull", f"docker-archive:{path}", name)
    assert service.conversions(image_id) == 1
    service.ask(ANNA, "rm", "two:1")
    assert service.ask(ANNA, "lookup", "two:2")["id"] == image_id
    service.ask(ANNA, "rm", "two:2")
    assert f"{image_id}.squashfs" not in service.files()


def test_an_image_that_a_job_uses_stays(service: Service) -> None:
    path, image_id = fresh(service)
    service.ask(ANNA, "pull", f"docker-archive:{path}", "used:1")
    plan = service.store / "plans" / "12.x"
    plan.write_text(f"image squashfs /store/images/{image_id}.squashfs {image_id}\n")
    os.chown(plan, ACCOUNT, ACCOUNT)
    service.ask(ANNA, "rm", "used:1")
    assert f"{image_id}.squashfs" in service.files()
    plan.unlink()
    other, _ = fresh(service)
    service.ask(ANNA, "pull", f"docker-archive:{other}")
    assert f"{image_id}.squashfs" not in service.files()


def test_pulling_a_name_again_replaces_what_it_stands_for(service: Service) -> None:
    (first, first_id), (second, second_id) = fresh(service), fresh(service)
    service.ask(ANNA, "pull", f"docker-archive:{first}", "again:1")
    service.ask(BERT, "pull", f"docker-archive:{first}", "bert:1")
    service.ask(ANNA, "pull", f"docker-archive:{second}", "again:1")
    assert service.ask(ANNA, "lookup", "again:1")["id"] == second_id
    assert service.ask(BERT, "lookup", "bert:1")["id"] == first_id


def test_the_client_opens_files_with_the_users_rights(service: Service) -> None:
    path, image_id = fresh(service)
    os.chown(path, ANNA, ANNA)
    Path(path).chmod(0o400)
    refused = service.udi(BERT, "pull", f"docker-archive:{path}", "stolen:1")
    assert refused.returncode == 4
    assert refused.stderr.startswith(f"udi: {path}: permission denied")
    assert service.ask(ANNA, "pull", f"docker-archive:{path}", "own:1")["id"] == image_id, "the service may not read it"


def test_a_user_namespace_makes_nobody_root(service: Service) -> None:
    """Workflow engines and users' own containers start programs in one: a pull there is the user's, as anywhere."""
    path, _ = fresh(service, "namespace/app:1")
    within = ["unshare", "--user", "--map-root-user"]
    pulled = run_as(ANNA, [*within, *service.command("pull", f"docker-archive:{path}", "--json")])
    assert pulled.returncode == 0, pulled.stderr
    assert (service.store / f"refs/namespace%2Fapp:1~{ANNA}.json").exists()
    public = run_as(ANNA, [*within, *service.command("pull", "--public", f"docker-archive:{path}", "x:1")])
    assert public.returncode == 4, "she looks like root there, and is no publisher"
    service.ask(ANNA, "rm", "namespace/app:1")


def test_whiteouts_and_devices_need_no_right(service: Service) -> None:
    """The service's account can make no device node, as which overlays have both."""
    path = service.directory / "whiteouts.tar"
    upper = [whiteout("gone"), opaque("d"), file("d/new"), Entry(b"null", tarfile.CHRTYPE)]
    image_id = make_archive(path, [[*BASE, file("gone"), file("d/old")], upper], tags=["whiteouts:1"])
    path.chmod(0o644)
    assert service.ask(ANNA, "pull", f"docker-archive:{path}")["id"] == image_id
    image = service.store / "images" / f"{image_id}.squashfs"
    listed = subprocess.run(["rdsquashfs", "--describe", image], capture_output=True, text=True, check=True).stdout
    assert [line.split()[1] for line in listed.splitlines() if line.startswith("file ")] == ["bin/sh", "d/new"]
    assert "nod" not in [line.split()[0] for line in listed.splitlines()]


def test_an_oci_layout_in_a_folder_that_only_its_owner_can_enter(service: Service) -> None:
    directory = service.directory / "anna"
    image_id = make_oci_layout(directory / "oci", [BASE, [file("data", b"oci")]], how="gzip")
    subprocess.run(["chown", "-R", str(ANNA), directory], check=True)
    directory.chmod(0o700)
    assert service.udi(ANNA, "pull", f"oci:{directory}/oci:1").returncode == 2, "it has a tag there, and no name"
    assert service.ask(ANNA, "pull", f"oci:{directory}/oci:1", "from/oci:1")["id"] == image_id
