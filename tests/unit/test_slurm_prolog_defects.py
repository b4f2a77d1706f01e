"""A defect of ours in Slurm's Prolog: the node is drained, or the job sent back, and the trace is in the site's log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from jobs.local import LocalJob
from slurm_hooks import prolog
from slurm_hooks.call import HookCall
from slurm_hooks.prolog import _Start
from slurm_hooks.settings import SlurmConfig
from udi import config
from udi.config import SiteConfig
from udi.platform import Machine


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    text = f'[store]\npath = "/lus/udi"\n[node]\nroot = "{tmp_path}/var"\nrun = "{tmp_path}/run"\n'
    return config.parse(text, "udi.toml")


def start(site: SiteConfig, tmp_path: Path, image: str) -> _Start:
    def machine(_: SiteConfig) -> Machine:
        raise AssertionError("native Slurm needs none")

    settings = SlurmConfig(notes=f"{tmp_path}/notes", scontrol=f"{tmp_path}/scontrol", squeue=f"{tmp_path}/squeue")
    return _Start(site, settings, machine, HookCall("7", 0, "n1", image=image))


def test_a_job_without_an_image(
    site: SiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: LocalJob, deadline: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(LocalJob, "take_down", broken)
    monkeypatch.setattr(prolog, "ignore_signals", lambda: None)
    assert start(site, tmp_path, "").clear() == 1
    assert "internal error" in caplog.text and "ValueError: a defect" in caplog.text


@pytest.mark.parametrize("where", ["locked", "_is_ready_already"])
def test_a_job_with_an_image(
    site: SiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    def broken(self: object, *_: object) -> None:
        raise ValueError("a defect")

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(LocalJob if where == "locked" else _Start, where, broken)
    monkeypatch.setattr(prolog, "ignore_signals", lambda: None)
    assert start(site, tmp_path, "debian:12").run() == 0
    assert "ValueError: a defect" in caplog.text
    note = (tmp_path / "notes/7").read_text()
    assert "state failed" in note and "internal%20error" in note
