"""The program that is measured, inside the image: imports all modules, then visits each; prints one JSON object.

It is a file of the image, run by the image's Python as any program, so it imports nothing that it does not need. Times
are seconds of CLOCK_MONOTONIC, which all of a machine's processes share: `started` is when this program's first line
ran.
"""

import time

started = time.monotonic()

import sys  # noqa: E402


def main(directory: str) -> None:
    sys.path.insert(0, directory)
    with open(f"{directory}/modules.txt") as stream:
        names = stream.read().split()
    modules = []
    for name in names:
        __import__(name)
        modules.append((sys.modules[name], name.rpartition(".")[2] + "_entry"))
    imported = time.monotonic()
    calls = 0
    for module, entry in modules:
        calls += getattr(module, entry)() or 0
    ended = time.monotonic()
    fields = ("started", started), ("imported", imported), ("ended", ended), ("modules", len(modules)), ("calls", calls)
    print("{" + ", ".join(f'"{name}": {value!r}' for name, value in fields) + "}", flush=True)


main(sys.argv[1])
