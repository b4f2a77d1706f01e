"""Imports the node software out of one entry of its zip.

`zipimport` opens the archive twice for every module that it loads, and unmarshals it twice; on a parallel file system
each open is a round trip. So the zip has the compiled code of all modules, and of those that they need of Python's own
library, in one table, and this module, the only one that `zipimport` itself has to load.
"""

import marshal
import sys
from _frozen_importlib import ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from zipimport import zipimporter

TABLE = "modules.marshal"
"""Entry of the zip: a dict of module name → (whether it is a package, its marshalled code)."""
PROGRAMS = "programs/"
"""Where the zip has programs that set-up writes into a root."""


class Bundle:
    """A finder and loader of the modules of the table, and of what else the zip has."""

    def __init__(self, archive: "zipimporter") -> None:
        self._archive = archive
        self._table: dict[str, tuple[bool, bytes]] = marshal.loads(archive.get_data(TABLE))  # noqa: S302

    def program(self, name: str) -> bytes:
        """The program of that name. Raises OSError."""
        return self._archive.get_data(PROGRAMS + name)

    def find_spec(self, name: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        if name not in self._table:
            return None
        return ModuleSpec(name, self, is_package=self._table[name][0])  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> "ModuleType | None":
        return None

    def exec_module(self, module: "ModuleType") -> None:
        exec(marshal.loads(self._table[module.__name__][1]), module.__dict__)  # noqa: S102, S302 - a loader does just this


def install(archive: str) -> None:
    """Make the modules of the zip at `archive` importable."""
    from zipimport import zipimporter

    sys.meta_path.insert(0, Bundle(zipimporter(archive)))
