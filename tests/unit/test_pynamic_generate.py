"""The generator of programs with very many modules, and what it takes over from LLNL's."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.pynamic.generate import (
    NAMES,
    SIZES,
    Size,
    extension_source,
    function_counts,
    of_pynamic,
    pure_source,
)
from udiroot.errors import NotFound


def test_numbers_of_functions_are_around_the_average_and_always_the_same() -> None:
    size = Size(400, 100, 0)
    counts = function_counts(size)
    assert counts == function_counts(size)
    assert len(counts) == 400
    assert 50 <= min(counts) < 60
    assert 140 < max(counts) <= 150
    assert 95 < sum(counts) / len(counts) < 105


def test_the_size_of_the_paper() -> None:
    assert (SIZES["paper"].modules, SIZES["paper"].functions) == (495, 1850)


@pytest.mark.parametrize("functions", [1, 9, 10, 11, 25])
def test_each_function_is_a_method_and_is_called_once_in_a_chain_of_ten(functions: int) -> None:
    source = extension_source(7, functions)
    for number in range(functions):
        name = f"libmodule7_function_{number}"
        definition = f"PyObject *{name}(PyObject *self, PyObject *none) {{"
        assert source.count(definition) == 1
        assert source.count(f'{{"function_{number}_of_libmodule7", {name}, METH_NOARGS') == 1
        assert source.count(f"{name}(self, 0)") == (1 if number % 10 == 0 else 0)
        assert source.count(f"return {name}(self, none)") == (0 if number % 10 == 0 else 1)


def test_a_pure_module_computes_what_it_is_visited_for() -> None:
    scope: dict[str, object] = {}
    exec(pure_source(5), scope)
    visit = scope["pure5_entry"]
    assert callable(visit)
    assert visit() == sum((5 * (step + 3) + 5) % 65521 for step in range(30))


def test_a_directory_of_pynamic_is_taken_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    for name in ("libmodule10.so", "libmodule2.cpython-311-x86_64-linux-gnu.so", "libmodule0.so", "libutility3.so"):
        (made / name).write_bytes(name.encode())
    (made / "pynamic_driver.py").write_text("import mpi4py\n")
    taken = of_pynamic(made, tmp_path / "taken")
    assert (taken / NAMES).read_text() == "libmodule0\nlibmodule2\nlibmodule10\n"
    assert sorted(path.name for path in taken.glob("*.so")) == sorted(path.name for path in made.glob("*.so"))
    assert not (taken / "pynamic_driver.py").exists()


def test_a_directory_without_modules_is_refused(tmp_path: Path) -> None:
    (tmp_path / "libutility0.so").touch()
    with pytest.raises(NotFound, match=r"no libmodule0\.so"):
        of_pynamic(tmp_path, tmp_path / "taken")
