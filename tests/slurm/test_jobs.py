"""Jobs of a real Slurm in images: as users write them, by sbatch, srun and salloc, on two nodes."""

from __future__ import annotations

import re

import pytest

from slurmsim.cluster import LOGIN
from tests.slurm.cluster import ALICE, BOB, LOOK, Slurm
from tests.system import images
from tests.system.images import CONFIG


def expected(slurm: Slurm, image: str, uid: int, *nodes: str) -> list[str]:
    return sorted(f"{node} {slurm.marker(image)} {uid}" for node in nodes)


def waiting(user: str) -> str:
    """Part of a script: it says that it runs, and waits to be told to go on."""
    return f"touch /scratch/{user}/up; until [ -e /scratch/{user}/go ]; do sleep 0.05; done"


def outside(uid: int, *nodes: str) -> list[str]:
    return sorted(f"{node} NO IMAGE {uid}" for node in nodes)


@pytest.mark.parametrize(("user", "uid", "image"), [("alice", ALICE, "tiny:1"), ("bob", BOB, "secret:1")])
def test_two_nodes_by_each_command(slurm: Slurm, user: str, uid: int, image: str) -> None:
    wanted = expected(slurm, image, uid, "n1", "n2")
    by_srun = slurm.run(user, "srun", "-N2", f"--image={image}", "sh", "-c", LOOK)
    assert (by_srun.returncode, sorted(by_srun.stdout.splitlines())) == (0, wanted), by_srun.stderr
    script = f"{LOOK}\nfor n in 1; do :; done"
    assert slurm.batch(user, script, "-N2", f"--image={image}") == (0, wanted[0] + "\n")
    by_directive = slurm.batch(user, f"#SBATCH --image={image}\n#SBATCH -N2\n{LOOK}")
    assert by_directive == (0, wanted[0] + "\n")
    inner = slurm.run(user, "salloc", "-N2", f"--image={image}", "srun", "sh", "-c", LOOK)
    assert (inner.returncode, sorted(inner.stdout.splitlines())) == (0, wanted), inner.stderr


def test_steps_of_a_script_that_stays_outside(slurm: Slurm) -> None:
    """Steps are in the image, whatever they are told; `none` is outside; no step has another image."""
    script = f"""exec 2>&1
    srun -N2 sh -c '{LOOK}' | sort
    srun -N1 -w n1 --image=none sh -c '{LOOK}'
    srun -N1 -w n1 --image=tiny:1 sh -c '{LOOK}'
    srun -N1 -w n1 --image=tools:1 true; echo $?
    env -u SLURM_SPANK_UDI_IMAGE srun -N1 -w n1 --export=NONE /bin/sh -c '{LOOK}'"""
    done = slurm.run("alice", "salloc", "-N2", "--image=tiny:1", "sh", "-c", script)
    lines = done.stdout.splitlines()
    assert lines[:2] == expected(slurm, "tiny:1", ALICE, "n1", "n2")
    assert lines[2] == outside(ALICE, "n1")[0]
    assert lines[3] == expected(slurm, "tiny:1", ALICE, "n1")[0]
    refused = [line for line in lines if "tools:1" in line]
    assert len(refused) == 1, lines
    assert "tiny:1" in refused[0]
    assert lines[-1] == expected(slurm, "tiny:1", ALICE, "n1")[0]


def test_an_unpacked_tree(slurm: Slurm) -> None:
    """It belongs to the store's account and nobody writes it; who may not use it has no job in it, nor reads it."""
    slurm.pull("alice", "tree:1", "--format", "directory")
    wanted = expected(slurm, "tree:1", ALICE, "n1", "n2")
    look = f"{LOOK}; touch /bin/x 2>/dev/null && echo WRITTEN; true"
    done = slurm.run("alice", "srun", "-N2", "--image=tree:1", "sh", "-c", look)
    assert (done.returncode, sorted(done.stdout.splitlines())) == (0, wanted), done.stderr
    refused = slurm.run("bob", "srun", "--image=tree:1", "true")
    assert refused.returncode != 0
    assert "tree:1" in refused.stderr
    assert slurm.run("bob", "ls", f"/scratch/udi/images/{slurm.ids['tree:1']}.directory").returncode != 0
    assert slurm.run("alice", "udi", "rm", "tree:1").returncode == 0


def test_two_users_on_one_node_at_once(slurm: Slurm) -> None:
    """Each in a root of its own."""
    jobs = {}
    for user, image in (("alice", "tiny:1"), ("bob", "secret:1")):
        script = f"{waiting(user)}\n{LOOK}; ls /tmp; echo x >/tmp/of-{user}"
        jobs[user] = slurm.submit(user, script, "-w", "n1", "-c1", f"--image={image}")
    for user in jobs:
        slurm.await_file(slurm.scratch(user) / "up")
    assert slurm.roots("n1") == set(jobs.values())
    images = {line.partition(" ")[2] for line in slurm.left("n1") if line.startswith("loop")}
    assert images == {f"/scratch/udi/images/{slurm.ids[name]}.squashfs" for name in ("tiny:1", "secret:1")}
    assert {line.split(" ")[0] for line in slurm.tasks("n1")} == {f"/var/udi/{job}" for job in jobs.values()}
    (slurm.scratch("alice") / "go").touch()
    slurm.await_state(jobs["alice"], "COMPLETED")
    assert jobs["bob"] in slurm.roots("n1")
    (slurm.scratch("bob") / "go").touch()
    slurm.await_state(jobs["bob"], "COMPLETED")
    assert slurm.output("alice", jobs["alice"]).splitlines() == expected(slurm, "tiny:1", ALICE, "n1")
    assert slurm.output("bob", jobs["bob"]).splitlines() == expected(slurm, "secret:1", BOB, "n1")


@pytest.mark.parametrize("command", ["srun", "sbatch", "salloc"])
@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("nobody:1", "image 'nobody:1' not found, or you do not have access to it"),
        ("secret:1", "image 'secret:1' not found, or you do not have access to it"),
        ("NO NAME", "not an image name: 'NO NAME'"),
    ],
)
def test_a_name_that_cannot_be_is_refused_at_submission(slurm: Slurm, command: str, image: str, said: str) -> None:
    words = ["--wrap", "true"] if command == "sbatch" else ["true"]
    done = slurm.run("alice", command, f"--image={image}", *words)
    assert done.returncode != 0
    assert f"udi-slurm-submit: {said}" in done.stderr
    assert done.stderr.count(said) == 1


@pytest.mark.parametrize("name", ["docker:tools:1", "docker:tools", "id:", "tools:1", "tools@"])
def test_names_are_understood_as_everywhere(slurm: Slurm, name: str) -> None:
    slurm.pull("alice", "tools:latest")
    image = "tools:latest" if name == "docker:tools" else "tools:1"
    given = {"id:": f"id:{slurm.ids['tools:1']}", "tools@": "tools:1"}.get(name, name)
    done = slurm.run("alice", "srun", f"--image={given}", "cat", "/etc/marker")
    assert (done.returncode, done.stdout) == (0, slurm.marker(image) + "\n"), done.stderr


@pytest.mark.parametrize("option", ["--imagevolume", "--volume"])
def test_volumes(slurm: Slurm, option: str) -> None:
    scratch = slurm.scratch("alice")
    (scratch / "data").mkdir(exist_ok=True)
    (scratch / "data").chmod(0o777)
    (scratch / "data/file").write_text("of alice\n")
    given = f"{option}=/scratch/alice/data:/output;/scratch/alice/data:/usr/share/input:ro"
    script = "exec 2>&1; cat /output/file /usr/share/input/file; touch /output/new && echo new"
    code, output = slurm.batch("alice", f"{script}; touch /usr/share/input/x || echo ro", "--image=tiny:1", given)
    assert (code, output.splitlines()[:3], output.splitlines()[-1]) == (0, ["of alice", "of alice", "new"], "ro"), (
        output
    )
    refused = slurm.run("alice", "srun", "--image=tiny:1", f"{option}=/root:/data", "true")
    assert "source /root is not in a directory that the site allows" in refused.stderr
    assert slurm.run("alice", "srun", f"{option}=/scratch/alice:/data", "true").returncode != 0


def test_arrays_and_heterogeneous_jobs(slurm: Slurm) -> None:
    """What a tag stood for when the array was submitted is every task's image."""
    script = f'echo "$SLURM_ARRAY_TASK_ID $({LOOK})"'
    slurm.pull("alice", "part:1")
    options = ("--array=1-3", "--image=part:1", "-o", "/scratch/alice/array-%a.out")
    job = slurm.submit("alice", script, "--hold", *options)
    slurm.pull("alice", "part:1", layers=images.tiny("later"))
    slurm.run("alice", "scontrol", "release", job)
    slurm.await_state(job, "COMPLETED")
    for index in range(1, 4):
        slurm.await_file(slurm.scratch("alice") / f"array-{index}.out")
    slurm.cluster.await_states("idle")
    outputs = [(slurm.scratch("alice") / f"array-{index}.out").read_text().split() for index in range(1, 4)]
    assert [(words[0], *words[2:]) for words in outputs] == [
        (str(index), slurm.marker("part:1"), str(ALICE)) for index in range(1, 4)
    ]
    of_node = ["--image=tiny:1", "sh", "-c", LOOK]
    done = slurm.run("alice", "srun", "-w", "n1", *of_node, ":", "-w", "n2", *of_node)
    assert sorted(done.stdout.splitlines()) == expected(slurm, "tiny:1", ALICE, "n1", "n2"), done.stderr


def test_pty_overlap_and_interactive(slurm: Slurm) -> None:
    typed = f"exec 2>&1\n{LOOK}\nexit 3\n"
    done = slurm.run("alice", "script", "-qec", "srun --pty --image=tiny:1 sh", "/dev/null", input=typed)
    assert slurm.marker("tiny:1") in done.stdout
    job = slurm.submit("alice", f"{waiting('alice')}\n{LOOK}", "--image=tiny:1", "-w", "n1")
    slurm.await_file(slurm.scratch("alice") / "up")
    beside = slurm.run("alice", "srun", f"--jobid={job}", "--overlap", "sh", "-c", LOOK)
    assert beside.stdout.splitlines() == expected(slurm, "tiny:1", ALICE, "n1"), beside.stderr
    (slurm.scratch("alice") / "go").touch()
    slurm.await_state(job, "COMPLETED")
    shell = {"SHELL": "/bin/sh"}  # the image has no other one
    inside = slurm.run("alice", "salloc", "--image=tiny:1", "-w", "n2", input=f"{LOOK}\nexit\n", env=shell)
    assert slurm.marker("tiny:1") in inside.stdout, inside.stderr


def test_salloc_of_a_user_whose_shell_the_image_lacks(slurm: Slurm) -> None:
    """As pages have it: another shell, or one that stays outside, where srun is."""
    bash = {"SHELL": "/bin/bash"}
    for words in (["salloc", "--image=tiny:1"], ["script", "-qec", "salloc --image=tiny:1", "/dev/null"]):
        done = slurm.run("alice", *words, input="exit\n", env=bash)
        assert done.returncode == 1
        said = " ".join((done.stdout + done.stderr).split())
        assert "udi: the image has no /bin/bash, which is your SHELL: for a shell in the image, SHELL=/bin/sh" in said
        assert "execve" not in said
    inside = slurm.run("alice", "sh", "-c", "SHELL=/bin/sh salloc --image=tiny:1", input=f"{LOOK}\nexit\n", env=bash)
    assert slurm.marker("tiny:1") in inside.stdout, inside.stderr
    typed = f"hostname -s\nsrun sh -c '{LOOK}'\n"
    outside = slurm.run("alice", "salloc", "-Q", "-N2", "--image=tiny:1", "bash", input=typed, env=bash)
    assert outside.stdout.split()[0] == LOGIN and outside.stdout.count(slurm.marker("tiny:1")) == 2, outside.stderr


def test_where_a_job_starts_and_what_its_environment_is(slurm: Slurm) -> None:
    kept = slurm.run(
        "alice", "srun", "--image=tiny:1", "sh", "-c", "pwd; echo $GREETING; echo $HOME $USER $SLURM_NTASKS"
    )
    assert kept.stdout.splitlines() == ["/scratch/alice", 'it\'s "here"', "/home/alice alice 1"]
    away = slurm.run("alice", "srun", "--image=tiny:1", "sh", "-c", "pwd", cwd="/usr/share")
    assert (away.stdout, away.returncode) == (f"{CONFIG['WorkingDir']}\n", 0), away.stderr


def test_what_a_job_leaves_goes_with_it(slurm: Slurm) -> None:
    script = "echo x >/dev/shm/x; echo x >/tmp/x; setsid sleep 1000 >/dev/null 2>&1 & sleep 0.2"
    assert slurm.batch("alice", script, "--image=tiny:1", "-w", "n1")[0] == 0
    slurm.await_clean()
    assert slurm.tasks("n1") == []
    assert "x" not in slurm.cluster.root("n1", "ls", "/dev/shm").stdout.split()


@pytest.mark.parametrize("moment", ["at once", "in a step", "in the script"])
def test_cancelled(slurm: Slurm, moment: str) -> None:
    step = "srun " if moment == "in a step" else ""
    options = ["-N2", "--image=tiny:1"]
    script = "sh -c 'touch /scratch/alice/up; sleep 1000'"
    if moment == "in a step":
        process = slurm.cluster.popen_as("alice", "srun", *options, "sh", "-c", f"{script}", cwd="/scratch/alice")
        slurm.await_file(slurm.scratch("alice") / "up")
        slurm.run("alice", "scancel", "-u", "alice")
        assert process.wait(60) != 0
    else:
        job = slurm.submit("alice", f"{step}{script}", *options)
        if moment == "in the script":
            slurm.await_file(slurm.scratch("alice") / "up")
        slurm.run("alice", "scancel", job)
        slurm.await_state(job, "CANCELLED")
    slurm.await_clean()


def test_requeued(slurm: Slurm) -> None:
    script = f'echo "$SLURM_RESTART_COUNT $({LOOK})"\n{waiting("alice")}'
    job = slurm.submit("alice", script, "--image=tiny:1", "--requeue", "--open-mode=append", "-w", "n1")
    slurm.await_file(slurm.scratch("alice") / "up")
    slurm.cluster.root("login", "scontrol", "requeue", job)
    (slurm.scratch("alice") / "go").touch()
    slurm.await_state(job, "COMPLETED")
    lines = [line for line in slurm.output("alice", job).splitlines() if "CANCELLED" not in line]
    assert [line.split(" ", 1)[-1] for line in lines] == 2 * expected(slurm, "tiny:1", ALICE, "n1")


def test_a_job_without_an_image_is_none_of_ours(slurm: Slurm) -> None:
    done = slurm.run("alice", "srun", "-N2", "sh", "-c", LOOK)
    assert sorted(done.stdout.splitlines()) == outside(ALICE, "n1", "n2")
    assert not re.search(r"udi", done.stderr)
    slurm.await_clean()
