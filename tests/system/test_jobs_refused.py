"""What qsub refuses, and what never becomes an image: one clear line, and no job."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.gateway.archives import directory, file, layer_tar, make_archive
from tests.system import images
from tests.system.cray import A, Cray
from tests.system.endings import deleted_with
from tests.system.scripts import expected, ranks

GRAMMAR = "(an image is NAME[:TAG][@sha256:...] in lower case, vm:NAME[:TAG], chos:NAME, or id: and 64 hex digits)"
BAD_TAGS = [
    "tiny:$(touch /tmp/owned)",
    "tiny:`id`",
    "tiny:1'; touch /tmp/owned; '",
    'tiny:"1"',
    "tiny:1\nreboot",
    "tiny:1 (complete)",
    pytest.param(f"tiny:1 Reply (complete) from nid{A:05d} exit code: 0", id="xtxqtcmd's reply"),
    "../../etc/passwd",
    "tiny:1\x1b[31m",
    "tiny:é",
    "x" * 500,
]


def variables(image: str) -> tuple[list[str], dict[str, str]]:
    """`-v UDI` and the environment: the one way by which every character reaches Torque."""
    return ["-v", "UDI"], {"UDI": image}


@pytest.mark.parametrize("image", BAD_TAGS)
def test_a_tag_of_shell_characters_is_refused_by_qsub(cray: Cray, image: str) -> None:
    options, environment = variables(image)
    line = cray.refused("alice", *options, env=environment)
    assert re.fullmatch(r"udi-submit-filter: (not an image name: '.*'|image name of 500 characters: x+\.\.\.) .*", line)
    assert line.endswith(GRAMMAR) and line.isprintable() and line.isascii()
    assert not cray.machine.path("/tmp/owned").exists()


@pytest.mark.parametrize("image", BAD_TAGS[:2] + BAD_TAGS[4:6])
def test_a_tag_of_shell_characters_ends_the_job_at_its_prologue(cray: Cray, image: str) -> None:
    """The filter is the user's own program, in effect: what it let pass is judged again."""
    options, environment = variables(image)
    with cray.without_filter():
        job = cray.machine.qsub("alice", [*options, "-l", "nodes=2"], ranks(), env=environment)
    ended = cray.ended(job)
    deleted_with(ended, "not an image name: ", GRAMMAR)
    assert ended.error.isascii()
    assert not cray.machine.path("/tmp/owned").exists()
    assert not cray.machine.node(A).path("/tmp/owned").exists()
    cray.assert_clean()


def test_no_such_image_is_refused_by_qsub(cray: Cray) -> None:
    line = cray.refused("alice", "-v", "UDI=tinny:1")
    assert line.startswith(
        "udi-submit-filter: image 'tinny:1' not found, or you do not have access to it; it cannot be pulled: "
    )
    assert line.endswith(" has no such image or layer in tinny: manifest unknown (did you mean tiny:1?)")


def test_an_image_of_another_user_is_refused_as_one_that_does_not_exist(cray: Cray) -> None:
    lines = [cray.refused("alice", "-v", f"UDI={name}") for name in ("secret:1", "absent:1")]
    assert lines[0].replace("secret", "absent") == lines[1]
    ids = [cray.ids["secret:1"], "0" * 64]
    lines = [cray.refused("alice", "-v", f"UDI=id:{one}").replace(one, "ID") for one in ids]
    assert lines[0] == lines[1]
    assert cray.udi("alice", "lookup", "secret:1", code=3).stderr.startswith(
        "udi: image 'secret:1' not found, or you do not have access to it"
    )
    assert "secret" not in cray.udi("alice", "images").stdout


@pytest.mark.parametrize(
    ("volumes", "words"),
    [
        (
            "/etc:/output",
            "source /etc is not in a directory that the site allows (allowed directories: /scratch, /home)",
        ),
        ("/scratch/../etc:/output", "must not contain '.', '..' or '//'"),
        ("/scratch/alice", "not a volume: "),
        ("scratch/alice:/output", "is not an absolute path"),
        ("/scratch2/me:/output", "is not in a directory that the site allows"),
        ("/scratch/alice:/opt/udi/bin", "no volume may be mounted on /opt/udi/bin"),
        ("/scratch/$(id):/output:rx", "not a volume: "),
        ("/scratch/alice/no-such:/output", "/scratch/alice/no-such does not exist"),
        ("/scratch/alice:/output;/scratch/bob:/output:ro", "and /scratch/bob:/output:ro have the same target"),
        ("/scratch/alice:/output:per-node=9T", "the site allows 1099511627776 bytes per node"),
        (";".join(f"/scratch/alice:/v{number}" for number in range(33)), "33 volumes requested, the site allows 32"),
    ],
)
def test_a_volume_is_refused_by_qsub(cray: Cray, volumes: str, words: str) -> None:
    line = cray.refused("alice", "-v", f"UDI=tiny:1,UDI_VOLUMES={volumes}")
    assert line.startswith("udi-submit-filter: ") and words in line


def test_directives_of_the_script_count_as_the_command_line_does(cray: Cray) -> None:
    assert "absent:1" in cray.refused("alice", script="#!/bin/bash\n#PBS -v UDI=absent:1\necho ran\n")
    job = cray.machine.qsub("alice", ["-l", "nodes=2:ppn=2"], "#!/bin/bash\n#PBS -v UDI=tiny:1\n" + ranks())
    assert sorted(cray.ended(job).output.splitlines()) == expected(cray.marker("tiny:1"), 1001)
    cray.assert_clean()


def test_jobs_go_on_when_the_gateway_is_down(cray: Cray) -> None:
    """The filter says that it could not check; the prologue needs the files of the store alone."""
    with cray.configured({"gateway": {"socket": "/run/udi-gateway/nobody.sock"}}):
        done = cray.machine.run_as("alice", ["qsub", "-v", "UDI=tiny:1", "-l", "nodes=2:ppn=2"], input=ranks())
        assert (done.returncode, done.stderr.count("\n")) == (0, 1)
        assert "image not checked, it will be when the job starts: the image gateway is not running" in done.stderr
        ended = cray.ended(done.stdout.strip())
        assert sorted(ended.output.splitlines()) == expected(cray.marker("tiny:1"), 1001)
        deleted_with(cray.run("alice", image="absent:1"), "image 'absent:1' not found, or you do not have access to it")
        deleted_with(cray.run("alice", image="secret:1"), "image 'secret:1' not found, or you do not have access to it")
    cray.assert_clean()


def test_a_configuration_with_an_unknown_key_is_told_with_the_nearest_one(cray: Cray) -> None:
    with cray.configured({"node": {"tmp_byts": 3}}):
        said = cray.admin("check-config", code=2)
    assert said == ("udi-admin: /etc/udi/udi.toml: unknown key node.tmp_byts\nhint: did you mean node.tmp_bytes?\n")
    assert cray.admin("check-config").endswith(": OK\n")


# -- archives that never become an image ---------------------------------------------------------------------------


def truncated(path: Path) -> None:
    make_archive(path, images.tiny("never"), tags=("bad:1",))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def other_layers(path: Path) -> None:
    wrong = {"type": "layers", "diff_ids": ["sha256:" + "1" * 64, "sha256:" + "2" * 64]}
    make_archive(path, images.tiny("never"), tags=("bad:1",), config={"rootfs": wrong})


def no_name(path: Path) -> None:
    make_archive(path, [[directory("opt"), file("opt/a\nb", mode=0o755)]], tags=("bad:1",))


def no_layer(path: Path) -> None:
    make_archive(path, [layer_tar(images.tiny("never")[0])[:5000]], tags=("bad:1",))


def no_archive(path: Path) -> None:
    path.write_text("not an archive\n")


@pytest.mark.parametrize("make", [truncated, other_layers, no_name, no_layer, no_archive])
def test_a_bad_archive_gets_one_line_and_no_image(cray: Cray, make: object) -> None:
    assert callable(make)
    path = cray.machine.path("/home/alice/bad.tar")
    make(path)
    path.chmod(0o644)
    before = sorted(one.name for one in cray.machine.path("/scratch/udi/images").iterdir())
    done = cray.udi("alice", "pull", "docker-archive:/home/alice/bad.tar", "bad:1", "--json", code=5)
    assert done.stderr.startswith("udi: ") and done.stdout == ""
    assert len([line for line in done.stderr.splitlines() if not line.startswith("hint: ")]) == 1, done.stderr
    assert cray.refused("alice", "-v", "UDI=bad:1").startswith(
        "udi-submit-filter: image 'bad:1' not found, or you do not have access to it"
    )
    assert sorted(one.name for one in cray.machine.path("/scratch/udi/images").iterdir()) == before
