"""The SPANK plugin in a real Slurm: a task is inside its job's image, or does not start."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.plugin_trial import BOB, PROGRAMS, Trial

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="needs root"),
    pytest.mark.skipif(
        any(not shutil.which(name) for name in PROGRAMS), reason="needs Slurm, which make setup installs"
    ),
]
WHERE = "echo $(cat /etc/inside 2>/dev/null || echo outside)"
IMAGE = "--image=debian:12"


@pytest.fixture(scope="module")
def running() -> Iterator[Trial]:
    trial = Trial()
    try:
        trial.start()
        yield trial
    finally:
        trial.stop()


@pytest.fixture
def trial(running: Trial) -> Iterator[Trial]:
    running.heal()
    yield running
    running.heal()


def refused(trial: Trial, *options: str) -> str:
    """The line that says why no task ran, neither in a step nor in a batch script."""
    done = trial.run("srun", "-wn1", *options, "sh", "-c", "echo a task ran")
    assert "a task ran" not in done.stdout
    assert done.returncode != 0
    code, output = trial.batch("echo a task ran\n", "-wn1", *options)
    assert "a task ran" not in output
    assert code != 0
    lines = [line for line in done.stderr.splitlines() if "udi: " in line]
    assert len(lines) == 1, done.stderr
    words = lines[0].partition("udi: ")[2]
    assert sum("udi: " in line for line in output.splitlines()) == 1, output
    return words


# What is asked for is what happens.


def test_a_step_is_inside(trial: Trial) -> None:
    done = trial.run("srun", "-wn1", IMAGE, "sh", "-c", f"{WHERE}; id -u; echo to stderr >&2; exit 3")
    assert done.stdout.splitlines() == ["yes", "2001"]
    assert done.returncode == 3
    assert sorted(done.stderr.splitlines()) == ["srun: error: n1: task 0: Exited with exit code 3", "to stderr"]


def test_a_step_without_an_image_is_outside_and_unchanged(trial: Trial) -> None:
    done = trial.run("srun", "sh", "-c", f"{WHERE}; pwd; echo $PATH $COLOUR")
    assert done.stdout.splitlines() == ["outside", "/home/alice", "/usr/bin:/bin"]
    assert trial.run("srun", "--image=none", "sh", "-c", f"{WHERE}").stdout == "outside\n"


def test_two_nodes_and_many_tasks(trial: Trial) -> None:
    done = trial.run(
        "srun",
        IMAGE,
        "-N2",
        "--ntasks-per-node=4",
        "sh",
        "-c",
        "echo $SLURM_PROCID $SLURMD_NODENAME $(cat /etc/inside)",
    )
    assert sorted(done.stdout.splitlines()) == [f"{at} n{1 + at // 4} yes" for at in range(8)], done.stderr


def test_the_environment_is_the_images_over_the_jobs_with_slurms_kept(trial: Trial) -> None:
    show = "echo $PATH $COLOUR $MINE; test $SLURM_JOB_ID -gt 0 && echo $SLURM_PROCID"
    done = trial.run("srun", IMAGE, "sh", "-c", show, env={"COLOUR": "red", "MINE": "kept"})
    assert done.stdout.splitlines() == ["/bin:/from-image blue kept", "0"]


def test_the_working_directory(trial: Trial) -> None:
    """The job's where the image has it, else the image's; Slurm has nothing to say about it."""
    for uid, cwd, expected in ((BOB, "/home/bob", "/home/bob"), (0, "/home/alice", "/work"), (BOB, "/tmp", "/tmp")):
        done = trial.run("srun", IMAGE, "sh", "-c", "pwd; echo $PWD", uid=uid, cwd=cwd)
        assert (done.stdout, done.stderr) == (f"{expected}\n{expected}\n", "")
    done = trial.run("srun", IMAGE, "--chdir=/data", "pwd", cwd="/")
    assert done.stdout == "/data\n"


def test_a_program_is_found_by_the_images_path(trial: Trial) -> None:
    assert trial.run("srun", IMAGE, "busybox", "echo", "found").stdout == "found\n"
    done = trial.run("srun", IMAGE, "sbatch", "--version")
    assert "sbatch: No such file" in done.stderr


def test_a_batch_script_is_inside_and_sees_its_own_spool_directory_only(trial: Trial) -> None:
    script = f"""
        {WHERE}; pwd; echo $0 | sed s/[0-9]*.slurm_script/N/; echo "$@"
        ls /var/spool/n1 | grep -c job; ls -a /var/spool/n1/job*; ls /var/spool/n2
        echo x > $0; echo x > /var/spool/n1/x; read line; echo $line; exit 5
    """
    other = trial.run("sbatch", "--parsable", "-o", "/dev/null", text="#!/bin/sh\nsleep 100\n").stdout.strip()
    code, output = trial.batch(script, IMAGE)
    trial.run("scancel", other)
    lines = output.splitlines()
    assert code == 5
    assert lines[:3] == ["yes", "/work", "/var/spool/n1/jobN"]
    assert lines[3:8] == ["", "1", ".", "..", "slurm_script"]
    assert [line.rpartition(": ")[2] for line in lines[8:10]] == ["Read-only file system"] * 2
    assert lines[10:] == [""]


def test_the_mounts_of_a_batch_script_go_with_the_root_and_spread_nowhere(trial: Trial) -> None:
    before = trial.sh("cat /proc/self/mountinfo | wc -l")
    code, output = trial.batch("mount | grep /var/spool/n1 | grep -c 'ro,nosuid,nodev'", IMAGE)
    assert (code, output) == (0, "2\n")
    trial.sh("while squeue -h | grep -q .; do sleep 0.05; done")
    trial.sh("while ls /run/udi-slurm | grep -q .; do sleep 0.05; done")
    assert trial.sh("cat /proc/self/mountinfo | wc -l") == before


def test_signals_reach_a_batch_script(trial: Trial) -> None:
    code, output = trial.batch("trap 'echo trapped; exit 9' TERM; kill $$; sleep 5", IMAGE)
    assert (code, output) == (9, "trapped\n")


def test_array_jobs(trial: Trial) -> None:
    done = trial.run("sbatch", "--wait", IMAGE, "--array=1-3", "-o", "/tmp/%A.%a", text=f"#!/bin/sh\n{WHERE}\n")
    job = done.stdout.split()[-1]
    assert done.returncode == 0
    for task in (1, 2, 3):
        path = Path(f"/tmp/{job}.{task}")
        assert path.read_text() == "yes\n"
        path.unlink()


def test_heterogeneous_jobs(trial: Trial) -> None:
    done = trial.run("srun", IMAGE, "-n1", "-wn1", ":", "-n1", "-wn2", "sh", "-c", f"{WHERE}; echo $SLURMD_NODENAME")
    assert sorted(done.stdout.splitlines()) == ["n1", "n2", "yes", "yes"]


def test_several_programs(trial: Trial) -> None:
    path = Path(f"/tmp/{trial.directory.name}.multi")
    path.write_text("0 cat /etc/inside\n1 echo second\n")
    path.chmod(0o644)
    try:
        done = trial.run("srun", IMAGE, "-n2", "--multi-prog", str(path))
    finally:
        path.unlink()
    assert sorted(done.stdout.splitlines()) == ["second", "yes"], done.stderr


def test_a_terminal_has_its_own_standard_error(trial: Trial) -> None:
    inner = f"test -t 2 && echo terminal; {WHERE} >&2"
    done = trial.run("script", "-qec", f"srun {IMAGE} --pty sh -c '{inner}'", "/dev/null")
    assert done.stdout.replace("^@", "").split() == ["terminal", "yes"]  # the end of input, as the terminal echoes it


def test_salloc_and_its_interactive_step(trial: Trial) -> None:
    steps = f"srun cat /etc/inside; srun --overlap --image=none sh -c '{WHERE}'"
    assert in_job(trial, steps) == ("yes\noutside\n", [])
    done = trial.run(
        "script", "-qec", f"salloc {IMAGE} --quiet", "/dev/null", env={"SHELL": "/bin/sh"}, text=f"{WHERE}\nexit\n"
    )
    assert "\nyes" in done.stdout.replace("\r", "")


def test_task_prolog_is_run_inside(trial: Trial) -> None:
    """Slurm's own order: what a site names as TaskProlog must be in the image."""
    done = trial.run("srun", IMAGE, "--task-prolog=/bin/true", "cat", "/etc/inside")
    assert (done.returncode, done.stdout) == (0, "yes\n")


def test_srun_within_an_image_where_the_site_shows_slurm_in_it_without_plugstack_conf(trial: Trial) -> None:
    """What a client says does not count: here one that knows no option at all."""
    bare = without_plugin(trial)
    step = f"SLURM_CONF={bare} srun --export=ALL,SLURM_CONF=/etc/slurm/slurm.conf cat /etc/inside"
    assert in_job(trial, step) == ("yes\n", [])


def without_plugin(trial: Trial) -> str:
    """A configuration by which a client knows no plugin."""
    path = f"{trial.directory}/bare.conf"
    trial.sh(f"(cat /etc/slurm/slurm.conf; echo PlugStackConfig=/nowhere) > {path}")
    return path


# A step of a job.


def in_job(trial: Trial, command: str) -> tuple[str, list[str]]:
    done = trial.run("salloc", IMAGE, "--volume=/a:/b", "--quiet", "sh", "-c", command)
    return done.stdout, [line.partition("udi: ")[2] for line in done.stderr.splitlines() if "udi: " in line]


def test_a_step_may_name_its_jobs_image_and_no_other(trial: Trial) -> None:
    steps = "srun --image=debian:12 cat /etc/inside; srun --image=docker:debian:12 cat /etc/inside"
    assert in_job(trial, steps) == ("yes\nyes\n", [])
    output, lines = in_job(trial, "srun -n4 --overcommit --image=alpine echo ran")
    assert output == ""
    assert lines == ["a step runs in the image of its job, debian:12, and not in 'alpine'"]


def test_a_step_may_not_have_volumes_of_its_own(trial: Trial) -> None:
    assert in_job(trial, "srun --volume=/a:/b cat /etc/inside") == ("yes\n", [])
    output, lines = in_job(trial, "srun --volume=/c:/d echo ran")
    assert output == ""
    assert lines == ["volumes are the whole job's: give --volume to sbatch, to salloc, or to an srun outside of a job"]


def test_options_removed_or_changed_in_a_job_change_nothing(trial: Trial) -> None:
    steps = (
        "env -i PATH=$PATH SLURM_JOB_ID=$SLURM_JOB_ID srun cat /etc/inside",
        "srun --export=NONE /bin/cat /etc/inside",
        "unset $(env | sed -n 's/^\\([^=]*SPANK[^=]*\\)=.*/\\1/p'); srun cat /etc/inside",
    )
    assert in_job(trial, "; ".join(steps)) == ("yes\nyes\nyes\n", [])


# What is asked for and is not there.


def test_submission_is_refused_in_one_line(trial: Trial) -> None:
    for words in (["srun", "--image=unknown", "true"], ["sbatch", "--image=unknown", "--wrap=true"]):
        done = trial.run(*words)
        assert (done.returncode, done.stdout) == (255, "")
        assert done.stderr == "udi-slurm-submit: image unknown: nobody knows it\n"
    done = trial.run("salloc", "--image=unknown", "true")
    assert done.stderr == "udi-slurm-submit: image unknown: nobody knows it\n"


def test_an_option_forged_in_the_environment(trial: Trial) -> None:
    """Where the client's own plugin sees it, it is as if it were given; where not, the node refuses."""
    forged = {"_SLURM_SPANK_OPTION_udi_image": "debian:12"}
    assert trial.run("srun", "cat", "/etc/inside", env=forged).stdout == "yes\n"
    environment = {**forged, "SLURM_CONF": without_plugin(trial)}
    done = trial.run("srun", "-wn1", "--export=ALL,SLURM_CONF=/etc/slurm/slurm.conf", "echo", "ran", env=environment)
    assert done.stdout == ""
    assert "udi: image 'debian:12' was asked for, but node n1 has prepared none for job" in done.stderr


def test_a_prolog_that_was_killed(trial: Trial) -> None:
    trial.spoil("rm $NOTE")
    assert refused(trial, IMAGE).startswith("image 'debian:12' was asked for, but node n1 has prepared none for job ")
    trial.spoil("write_note $U wanted $ROOT udi:$J:$U:made x")
    assert "is not ready on node n1; this is a fault of the site" in refused(trial, IMAGE)
    trial.spoil("rm $NOTE")
    words = refused(trial, IMAGE, "--export=NONE")
    assert "was asked for" in words


def test_a_root_that_failed_says_why(trial: Trial) -> None:
    trial.spoil(r"printf 'udi-note 1\nuid %s\nstate failed\nwhy no%%20such%%20image%%0a\nend\n' $U > $NOTE")
    assert refused(trial, IMAGE, "-n4") == "no such image?"


def test_a_note_for_a_job_that_asked_for_nothing(trial: Trial) -> None:
    """A job is what its note says: here that it failed."""
    trial.spoil(r"printf 'udi-note 1\nuid %s\nstate failed\nwhy lost\nend\n' $U > $NOTE")
    assert refused(trial) == "lost"


@pytest.mark.parametrize(
    "spoil",
    [
        "chown 2001 $NOTE",
        "chmod 666 $NOTE",
        "truncate -s -4 $NOTE",
        "truncate -s 0 $NOTE",
        "mv $NOTE $NOTE.x; ln -s $NOTE.x $NOTE",
        "rm $NOTE; mkfifo $NOTE",
        "rm $NOTE; mkdir $NOTE",
        "sed -i 's/state/frob 1\\nstate/' $NOTE",
        "write_note 2002 ready $ROOT udi:$J:$U:made debian:12",
        "write_note $U ready $ROOT udi:1$J:$U:made debian:12",
        "write_note $U ready $ROOT udi:$J:2002:made debian:12",
        "write_note $U ready relative udi:$J:$U:made debian:12",
    ],
)
def test_a_note_that_is_not_to_be_believed(trial: Trial, spoil: str) -> None:
    trial.spoil(spoil)
    assert refused(trial, IMAGE).endswith("; this is a fault of the site")


@pytest.mark.parametrize(
    "spoil",
    [
        "umount -R -l $ROOT",
        "umount -R -l $ROOT; rmdir $ROOT",
        "umount -R -l $ROOT; mount -t tmpfs udi:1$J:$U:made $ROOT",
        "umount -R -l $ROOT; mount -t tmpfs other $ROOT",
        "mount -t tmpfs other $ROOT",
        "umount -R -l $ROOT; rmdir $ROOT; mkdir -p /run/udi/real; mount -t tmpfs udi:$J:$U:made /run/udi/real;"
        " ln -s real $ROOT",
        "write_note $U ready / udi:$J:$U:made debian:12",
    ],
)
def test_a_root_that_is_not_this_jobs(trial: Trial, spoil: str) -> None:
    trial.spoil(spoil)
    assert "is no directory in the root of job" in refused(trial, IMAGE)


@pytest.mark.parametrize(
    "target",
    ["/var/spool", "/proc/1/root/var/spool", "/run/udi", "/home/alice"],
)
def test_an_image_whose_spool_directory_leads_elsewhere(trial: Trial, target: str) -> None:
    """The batch script is not shown outside of the root, wherever links of the image lead."""
    links = f"{trial.directory}/links"
    trial.sh(f"mkdir -p {links}/var; rm -rf {links}/var/spool; ln -s {target} {links}/var/spool; mkdir -p {target}/n1")
    before = trial.sh("grep -c . /proc/self/mountinfo")
    trial.spoil(
        "umount -R -l $ROOT; mount -t overlay udi:$J:$U:made -o "
        f"lowerdir={links}:{trial.directory}/made:{trial.directory}/image $ROOT; "
        "mount --make-private $ROOT; mount --rbind /proc $ROOT/proc"
    )
    code, output = trial.batch("echo ran", IMAGE)
    assert code != 0
    assert "ran" not in output.split()
    assert "is no directory in the root of job" in output
    trial.sh("while ls /run/udi-slurm | grep -q .; do sleep 0.05; done")
    assert trial.sh("grep -c . /proc/self/mountinfo") == before


def test_a_file_of_the_environment_that_is_not_ours(trial: Trial) -> None:
    trial.spoil("mount -t tmpfs udi:$J:$U:made $ROOT/opt/udi; mkdir $ROOT/opt/udi/etc")
    assert refused(trial, IMAGE).startswith("the environment of the image: No such file")
    trial.spoil("mount -t tmpfs udi:$J:$U:made $ROOT/opt/udi; mkdir $ROOT/opt/udi/etc; echo > $ROOT/opt/udi/etc/run")
    assert "is not what this plugin understands" in refused(trial, IMAGE)


# How the plugin is configured.


@pytest.fixture
def plugstack(trial: Trial) -> Iterator[Path]:
    path = trial.directory / "plugstack.conf"
    original = path.read_text()
    trial.sh(f"mount --bind {path} /etc/slurm/plugstack.conf")
    yield path
    path.write_text(original)
    trial.sh("umount /etc/slurm/plugstack.conf")


def test_a_plugin_that_is_optional_is_obeyed_all_the_same(trial: Trial, plugstack: Path) -> None:
    plugstack.write_text(plugstack.read_text().replace("required", "optional"))
    trial.spoil("rm $NOTE")
    assert "was asked for" in refused(trial, IMAGE)
    assert trial.run("sbatch", "--image=unknown", "--wrap=true").returncode == 255


def test_an_argument_that_is_not_understood(trial: Trial, plugstack: Path) -> None:
    plugstack.write_text(plugstack.read_text().replace("batch=inside", "batch=Inside"))
    done = trial.run("srun", "echo", "ran")
    assert (done.returncode, done.stdout) == (255, "")
    assert "udi: an argument in plugstack.conf is not understood" in done.stderr


def test_a_batch_script_outside(trial: Trial, plugstack: Path) -> None:
    plugstack.write_text(plugstack.read_text().replace("batch=inside", "batch=outside"))
    code, output = trial.batch(f"{WHERE}; srun cat /etc/inside; srun --image=none sh -c '{WHERE}'", IMAGE)
    assert output.splitlines() == ["outside", "yes", "outside"]
    trial.spoil("rm $NOTE")
    code, output = trial.batch("echo ran", IMAGE)
    assert code != 0
    assert "ran" not in output.split()


def test_over_alps_the_image_is_named_to_aprun(trial: Trial, plugstack: Path) -> None:
    plugstack.write_text(plugstack.read_text().replace("batch=inside", "batch=alps"))
    code, output = trial.batch(f"{WHERE}; echo $CRAY_ROOTFS", IMAGE)
    assert (code, output) == (0, "outside\nUDI\n")
    code, output = trial.batch("echo =$CRAY_ROOTFS")
    assert output == "=\n"
    trial.spoil(r"printf 'udi-note 1\nuid %s\nstate failed\nwhy lost\nend\n' $U > $NOTE")
    assert refused(trial, IMAGE) == "lost"


def test_nothing_of_an_image_is_opened_as_root(trial: Trial) -> None:
    """Between entering the root and being the user, a task opens no file: no name service, and no time zone, although
    Slurm logs something there, since the image lacks the working directory."""
    if not shutil.which("strace"):
        pytest.skip("needs strace, which make setup installs")
    trace = trial.directory / "trace"
    trial.sh(
        f"strace -f -qq -o {trace} -e trace=open,openat,openat2,execve,chroot,setreuid,setresuid -p $(cat /run/n1.pid)"
        f" 2>/dev/null & until grep -qs TracerPid:.[1-9] /proc/$(cat /run/n1.pid)/status; do sleep 0.05; done;"
        f" cd /home/alice; setpriv --reuid=2001 --regid=2001 --clear-groups srun -wn1 {IMAGE} true; kill $!; wait"
    )
    lines = trace.read_text().splitlines()
    task = next(line.split()[0] for line in lines if 'chroot("."' in line)
    calls = [line.partition(" ")[2].strip() for line in lines if line.split()[0] == task]
    entered = next(at for at, call in enumerate(calls) if call.startswith("chroot("))
    user = next(at for at, call in enumerate(calls) if call.startswith("setreuid(2001, 2001"))
    assert entered < user
    assert [call for call in calls[entered:user] if call.startswith(("open", "execve"))] == []
    assert any("/opt/udi/etc/run" in call for call in calls[user:])
