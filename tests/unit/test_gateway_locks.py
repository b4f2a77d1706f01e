"""Locks of the gateway: who is kept out, and the table of names that the documentation has."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from gateway.store import locks
from gateway.store.locks import LockName, Locks
from udiroot.errors import ConfigError, TimedOut


def test_the_table_in_the_documentation_is_the_class() -> None:
    documented = dict(re.findall(r"^    (\S.*?)  +(\S.*)$", locks.__doc__ or "", re.MULTILINE))
    made = {}
    for _, method in inspect.getmembers(Locks, inspect.isfunction):
        signature = inspect.signature(method)
        if signature.return_annotation == "LockName":
            name = method(*(parameter.upper() for parameter in signature.parameters))
            description = (method.__doc__ or "").removesuffix(".")
            made[name.text] = description[0].lower() + description[1:]
    assert documented == made
    assert len(made) > 10


def test_names_are_distinct_bytes() -> None:
    names = [
        Locks.store(),
        Locks.serve(),
        *(Locks.worker(n) for n in range(50)),
        *(Locks.connection("all", n) for n in range(50)),
    ]
    assert len({name.offset for name in names}) == len(names)


def test_exclusive_and_shared_locks(tmp_path: Path) -> None:
    made = Locks(str(tmp_path))
    name = made.image("0" * 64)
    with made.holder() as one, made.holder() as other:
        assert one.try_take(name, shared=True) and other.try_take(name, shared=True)
        assert not one.try_take(name)
        other.release(name)
        assert one.try_take(name) and not other.try_take(name, shared=True)
        assert other.try_take(made.image("1" * 64)), "another lock is not in the way"
        with pytest.raises(TimedOut, match="image 0000"):
            other.take(name, seconds=0.05)


def test_a_holder_that_closes_releases_all(tmp_path: Path) -> None:
    made = Locks(str(tmp_path))
    with made.holder() as one:
        assert one.try_take(made.store()) and one.try_take(LockName("other"))
    with made.holder() as other:
        assert other.try_take(made.store()) and other.try_take(LockName("other"))


def test_a_state_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"gateway\.state: .*: not a directory"):
        Locks(str(tmp_path / "file" / "state"))
