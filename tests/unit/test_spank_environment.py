"""The environment that the SPANK plugin gives a task, for which udi-run itself is the oracle."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import udi_run
from tests.unit.spank import ID, driver, run
from udi import rundata
from udi.accounts import Account
from udi.config import parse
from udi.facts import Facts

BYTES = st.binary(max_size=20).map(lambda raw: raw.replace(b"\0", b"0"))


def data_of(env: Sequence[str], site: str, programs: str = "", workdir: str = "/") -> bytes:
    facts = Facts(
        id=ID,
        format="squashfs",
        size=1,
        sha256="0" * 64,
        env=tuple(env),
        workdir=workdir,
        entrypoint=("a b",),
        cmd=("",),
    )
    table = parse(f'[store]\npath = "/x"\n[environment]\n{site}', "udi.toml").environment
    user = Account("alice", 1001, 1001, (1001,), "/home/alice", "/bin/sh")
    return rundata.run_data(facts, table, user, "app:1", programs).encode("utf-8", "surrogateescape")


@functools.cache
def udi_run_that_reads(data: Path) -> Path:
    program = data.with_name("udi-run")
    udi_run.program_that_reads(data, program)
    return program


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "run"


def environments(data: Path, inherited: Mapping[bytes, bytes]) -> tuple[set[bytes], set[bytes]]:
    """What a task gets by the plugin, and what udi-run gives it."""
    plugin = run("environment", data, env=inherited)
    assert plugin.returncode == 0, plugin.stderr
    command = [str(udi_run_that_reads(data)), "--workdir", ".", "/usr/bin/env", "-0"]
    oracle = subprocess.run(command, env=dict(inherited), capture_output=True, check=True)
    return set(plugin.stdout.split(b"\0")), set(oracle.stdout.split(b"\0"))


NAMES = st.sampled_from(["A", "PATH", "LD_LIBRARY_PATH", "SHELL", "HOME", "EMPTY", "P"])


@settings(max_examples=60)
@given(
    st.lists(st.tuples(NAMES, st.text("ab:=/ é", max_size=5)), max_size=5),
    st.dictionaries(NAMES, BYTES, max_size=5),
    st.dictionaries(NAMES, st.text("ab:/", min_size=1, max_size=4).map(lambda text: "/" + text), max_size=3),
    st.sampled_from(["set", "prepend", "append"]),
    st.sampled_from(["", "/opt/udi/bin"]),
)
def test_a_task_gets_what_udi_run_would_give_it(
    data_file: Path,
    env: list[tuple[str, str]],
    inherited: dict[str, bytes],
    site: dict[str, str],
    kind: str,
    programs: str,
) -> None:
    lists = "".join(
        f'{name} = "/x/{value.replace(":", "").strip("/")}"\n'
        for name, value in site.items()
        if name not in ("HOME", "SHELL", "P")
    )
    data_file.write_bytes(
        data_of([f"{name}={value}" for name, value in env], f'unset = ["P"]\n[environment.{kind}]\n{lists}', programs)
    )
    plugin, oracle = environments(data_file, {name.encode(): value for name, value in inherited.items()})
    assert plugin == oracle


def test_what_slurm_and_its_mpi_say_to_a_task_is_kept(data_file: Path) -> None:
    theirs = {b"SLURM_PROCID": b"3", b"PMI_FD": b"9", b"PMIX_RANK": b"3", b"CUDA_VISIBLE_DEVICES": b"1"}
    env = ["SLURM_PROCID=0", "PMI_FD=0", "PMIX_RANK=0", "CUDA_VISIBLE_DEVICES=all", "PMIX_MCA_gds=hash", "A=1"]
    data_file.write_bytes(data_of(env, 'unset = ["SLURM_PROCID"]\n'))
    plugin, _ = environments(data_file, theirs)
    assert {b"SLURM_PROCID=3", b"PMI_FD=9", b"PMIX_RANK=3", b"CUDA_VISIBLE_DEVICES=1"} < plugin
    assert {b"PMIX_MCA_gds=hash", b"A=1"} < plugin


def test_a_file_of_the_environment_that_is_cut_or_changed(data_file: Path, tmp_path: Path) -> None:
    data = data_of(["A=1"], "")
    path = tmp_path / "run"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        done = run("environment", path)
        if length < len(data) - 1:  # without its last NUL it is complete
            assert done.returncode == 1, data[:length]
            assert b"not what this plugin understands" in done.stderr
    for record in (b"frob A=1", b"set A", b"set =1", b"set", b"prepend A", b"", b"end", b"udi-run 2"):
        path.write_bytes(data.replace(b"set A=1\0", record + b"\0"))
        assert run("environment", path).returncode == 1, record
    path.unlink()
    assert b"No such file" in run("environment", path).stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a mount that no path leads to")
def test_a_working_directory_that_is_a_descriptor_to_the_outside_is_not_entered(tmp_path: Path) -> None:
    """As slurmstepd and launchers have some: an image's `/proc/self/fd/9` would be a way out of the root."""
    data = tmp_path / "run"
    (tmp_path / "outside").mkdir()
    for workdir, plugin_starts_in in (("/proc/self/fd/9", "/"), ("/usr", "/usr")):
        data.write_bytes(data_of([], "", workdir=workdir))
        start = f"mount -t tmpfs outside {tmp_path}/outside; exec 9< {tmp_path}/outside; umount -l {tmp_path}/outside; "
        for words, there in (
            (f"exec {driver()} environment {data} /nowhere", plugin_starts_in),
            (f"exec {udi_run_that_reads(data)} /usr/bin/env -0", workdir if workdir == "/usr" else "/tmp"),
        ):
            command = ["unshare", "--mount", "sh", "-c", f"{start} cd /tmp; {words}"]
            done = subprocess.run(command, env={"PATH": "/usr/bin:/usr/sbin"}, capture_output=True, check=True)
            assert f"PWD={there}".encode() in done.stdout.split(b"\0"), done.stderr
        udi_run_that_reads.cache_clear()
