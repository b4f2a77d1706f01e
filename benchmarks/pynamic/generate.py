"""A program like those of LLNL's Pynamic: Python that imports many extension modules and calls all that they have.

Each module is a shared library of its own, compiled from C. Its functions are global symbols, methods of the module
too, and call each other in chains of ten, as Pynamic's do; so the dynamic linker has as much to do as with the real
ones. Their number is random around the average, always the same for the same size. Pure-Python modules lie in packages
of twenty.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from udiroot.errors import NotFound
from xcsim import tools

PYTHON = "/usr/bin/python3"
NAMES = "modules.txt"
"""The file of a program that lists its modules in the order of their import: `name`, or `package.name`."""
_CHAIN = 10
_PACKAGE = 20
_COMPILE_SECONDS = 1800.0


@dataclass(frozen=True)
class Size:
    """How many extension modules, functions in each on average, and pure-Python modules."""

    modules: int
    functions: int
    pure: int

    def __str__(self) -> str:
        return f"{self.modules} extension modules of {self.functions} functions, {self.pure} pure-Python modules"


SIZES = {"small": Size(8, 20, 8), "default": Size(200, 300, 300), "paper": Size(495, 1850, 0)}
"""`small` is for tests, `default` for a run of about two minutes, `paper` is that of figure 3 of the CUG 2015 paper."""


def function_counts(size: Size) -> list[int]:
    """The number of functions of each extension module: between half and one and a half times the average."""
    chosen = random.Random(f"{size.modules} {size.functions}")
    return [max(1, round(size.functions * chosen.uniform(0.5, 1.5))) for _ in range(size.modules)]


def extension_source(module: int, functions: int) -> str:
    """The C source of extension module number `module`."""
    name = f"libmodule{module}"
    body = "".join(_function(name, number, functions) for number in range(functions))
    methods = "".join(
        f'    {{"function_{number}_of_{name}", {name}_function_{number}, METH_NOARGS, "function {number}"}},\n'
        for number in range(functions)
    )
    declared = "".join(f"PyObject *{name}_function_{number}(PyObject *, PyObject *);\n" for number in range(functions))
    chains = "".join(f"    Py_XDECREF({name}_function_{first}(self, 0));\n" for first in range(0, functions, _CHAIN))
    return f"""\
#include <Python.h>
long {name}_calls, {name}_total;
{declared}
{body}
static PyObject *entry(PyObject *self, PyObject *none) {{
{chains}    return PyLong_FromLong({name}_calls);
}}
static PyMethodDef methods[] = {{
    {{"{name}_entry", entry, METH_NOARGS, "calls every function and returns how many calls there were"}},
{methods}    {{0}}
}};
static struct PyModuleDef module = {{PyModuleDef_HEAD_INIT, "{name}", "a generated module", -1, methods}};
PyMODINIT_FUNC PyInit_{name}(void) {{ return PyModule_Create(&module); }}
"""


def _function(name: str, number: int, functions: int) -> str:
    last = number % _CHAIN == _CHAIN - 1 or number == functions - 1
    result = "PyLong_FromLong(value)" if last else f"{name}_function_{number + 1}(self, none)"
    return f"""\
PyObject *{name}_function_{number}(PyObject *self, PyObject *none) {{
    long value = {name}_total * {number + 3} + {number};
    {name}_calls++;
    if (value % 7 > 3) value -= {number % 11}; else value += {number % 13};
    {name}_total = value & 0xffffff;
    return {result};
}}
"""


def pure_source(number: int) -> str:
    """The source of a pure-Python module."""
    functions = "".join(
        f'def step_{step}(value):\n    """Step {step} of module {number}."""\n'
        f"    return (value * {step + 3} + {number}) % 65521\n\n\n"
        for step in range(30)
    )
    calls = ", ".join(f"step_{step}" for step in range(30))
    return f"{functions}def pure{number}_entry():\n    return sum(step({number}) for step in ({calls}))\n"


def generate(size: Size, cache: Path) -> Path:
    """The directory of the compiled program, made once for each size and kind of its sources.

    Raises SetupFailed where a compiler or Python's headers are missing.
    """
    made_of = extension_source(0, _CHAIN + 1) + pure_source(0)
    version = hashlib.sha256(made_of.encode()).hexdigest()[:12]
    target = cache / f"pynamic-{size.modules}-{size.functions}-{size.pure}-{version}"
    if target.exists():
        return target
    unfinished = target.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    flags = tools.run(
        PYTHON,
        "-c",
        "import sysconfig; print(sysconfig.get_path('include'), sysconfig.get_config_var('EXT_SUFFIX'))",
        failure="Python does not name its headers",
    ).split()
    with ThreadPoolExecutor(os.cpu_count()) as several:
        jobs = [
            several.submit(_compile, unfinished, module, functions, *flags)
            for module, functions in enumerate(function_counts(size))
        ]
        for job in jobs:
            job.result()
    names = [f"libmodule{module}" for module in range(size.modules)]
    names += _pure_modules(unfinished, size.pure)
    (unfinished / NAMES).write_text("\n".join(names) + "\n")
    tools.run(PYTHON, "-m", "compileall", "-q", unfinished, failure="the pure-Python modules did not compile")
    unfinished.rename(target)
    return target


def _compile(directory: Path, module: int, functions: int, include: str, suffix: str) -> None:
    source = directory / f"libmodule{module}.c"
    source.write_text(extension_source(module, functions))
    words = ("-O0", "-w", "-shared", "-fPIC", f"-I{include}", "-o", directory / f"libmodule{module}{suffix}", source)
    hint = "make pynamic installs the compiler and libpython3-dev"
    tools.run("gcc", *words, failure="a module did not compile", seconds=_COMPILE_SECONDS, hint=hint)
    source.unlink()


def _pure_modules(directory: Path, count: int) -> Iterator[str]:
    for number in range(count):
        package = directory / f"package{number // _PACKAGE}"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").touch()
        (package / f"pure{number}.py").write_text(pure_source(number))
        yield f"{package.name}.pure{number}"


def of_pynamic(directory: Path, target: Path) -> Path:
    """A copy, in `target`, of the shared libraries that LLNL's Pynamic left in `directory`, with the list of modules.

    Its modules are the `libmodule*` with a function `…_entry`; libraries that only link to them come along. They must
    have been made for this machine's Python. Raises NotFound where there are none.
    """
    libraries = sorted(directory.glob("*.so"))
    modules = {path.name.partition(".")[0] for path in libraries}
    numbered = sorted(
        (int(name.removeprefix("libmodule")), name) for name in modules if name.removeprefix("libmodule").isdigit()
    )
    if not numbered:
        raise NotFound(f"no libmodule0.so and so on in {directory}", "run Pynamic's config_pynamic.py there first")
    target.mkdir(parents=True)
    for path in libraries:
        shutil.copy(path, target / path.name)
    (target / NAMES).write_text("".join(f"{name}\n" for _, name in numbered))
    return target
