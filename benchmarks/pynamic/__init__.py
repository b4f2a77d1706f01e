"""How fast a program of hundreds of shared libraries starts, by where it is kept: the figure of the CUG 2015 paper.

    python -m benchmarks.pynamic [--size paper] [--pynamic DIRECTORY] [--output DIRECTORY]

`generate` makes the program, or LLNL's Pynamic has made it; `image` puts it, with a Python, into a tree and into image
files; `stores` are the file systems that hold them; `nodes` sets them up by our own setupRoot and runs the program
inside; `peers` are what a user would take instead. `rounds` measures, `scaling` does so on many nodes, `model` goes
where measuring cannot, `report` and `picture` show it.
"""
