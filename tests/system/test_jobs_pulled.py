"""The paper's way: a job names an image of the centre's registry, and submitting it brings the image in."""

from __future__ import annotations

import os

from tests.system import images
from tests.system.cray import Cray
from tests.system.scripts import expected, ranks
from xcsim import registry

ALICE, BOB = 1001, 1002


def test_submission_pulls_the_image_for_everybody(cray: Cray) -> None:
    archive = cray.machine.state / "pushed.tar"
    images.save(archive, images.tiny(cray.marker("pushed")), "team/app:1", (0, 0))
    registry.push(cray.machine, archive, "team/app:1")
    archive.unlink()
    script = ranks()
    done = cray.machine.run_as("alice", ["qsub", "-v", "UDI=team/app:1", "-l", "nodes=2:ppn=2"], input=script)
    assert done.returncode == 0, done.stderr
    said = [line.split(":")[0] for line in done.stderr.splitlines()]
    assert said[0] == "udi-submit-filter" and "fetching" in said and "packing" in said
    assert sorted(cray.ended(done.stdout.strip()).output.splitlines()) == expected(cray.marker("pushed"), ALICE)
    again = cray.machine.run_as(
        "bob", ["qsub", "-v", f"UDI={registry.name(cray.machine)}/team/app:1", "-l", "nodes=2:ppn=2"], input=script
    )
    assert (again.returncode, again.stderr) == (0, ""), "it is there, under all its spellings"
    assert sorted(cray.ended(again.stdout.strip()).output.splitlines()) == expected(cray.marker("pushed"), BOB)
    assert os.listdir(cray.machine.path("/var/lib/udi-gateway/layers")) == [registry.name(cray.machine)]
    cray.assert_clean()
