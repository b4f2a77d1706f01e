"""The model of many nodes at one store: what must hold whatever the figures are."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.pynamic import processor
from benchmarks.pynamic.model import Machine, Program, seconds

BOUNDS = st.floats(100, 1e6)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A program as one node's run gives it: its operations and its processor's seconds lie within its time."""
    operations, bound = draw(st.integers(1, 100_000)), draw(BOUNDS)
    processor = draw(st.floats(0.01, 100))
    return Program(processor + operations / bound + draw(st.floats(0, 100)), processor, operations, bound)


@given(programs(), st.sampled_from([0, 1, 2, 64]))
def test_one_node_takes_what_was_measured(program: Program, cores: int) -> None:
    assert seconds(program, Machine(program.bound, cores), 1) == pytest.approx(program.seconds)


@given(programs(), BOUNDS, st.sampled_from([0, 2, 64]), st.integers(1, 50))
def test_no_node_is_faster_than_alone_nor_the_store_than_its_bound(
    program: Program, bound: float, cores: int, nodes: int
) -> None:
    machine = Machine(bound, cores)
    taken = seconds(program, machine, nodes)
    assert taken >= seconds(program, machine, 1) * 0.999
    assert taken >= nodes * program.operations / bound * 0.999
    if cores:
        assert taken >= nodes * program.processor / cores * 0.999


@given(programs(), BOUNDS, st.integers(1, 50))
def test_more_nodes_take_no_less(program: Program, bound: float, nodes: int) -> None:
    assert seconds(program, Machine(bound), nodes + 1) >= seconds(program, Machine(bound), nodes) * 0.999


def test_where_the_store_is_full_the_time_is_its_operations() -> None:
    program = Program(seconds=2.0, processor=1.0, operations=1000, bound=2000)
    assert seconds(program, Machine(2000), 10_000) == pytest.approx(10_000 * 1000 / 2000, rel=0.01)


def test_where_the_store_is_idle_nodes_do_not_disturb_each_other() -> None:
    program = Program(seconds=2.0, processor=1.0, operations=10, bound=1e9)
    assert seconds(program, Machine(1e9), 1000) == pytest.approx(2.0, rel=0.001)


def test_a_faster_store_takes_its_part_of_the_time_away() -> None:
    program = Program(seconds=2.0, processor=0.5, operations=1000, bound=1000)
    assert seconds(program, Machine(1e9), 1) == pytest.approx(1.0, rel=0.001)


def test_the_kernels_threads_are_counted_from_what_each_had_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "kernel_threads", lambda: {10: 2.5, 12: 0.25})
    assert processor.since({10: 2.0, 11: 7.0}) == 0.75  # 11 has ended, 12 is new


def test_a_process_is_none_of_the_kernels_threads() -> None:
    assert os.getpid() not in processor.kernel_threads()
