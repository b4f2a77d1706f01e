"""Make the node software for an interpreter, as `udi-admin install` makes it for a site's.

Usage: nodezip.py PYTHON UDI_RUN OUTPUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from udi import config, nodezip


def main(python: str, udi_run: str, output: str) -> None:
    """Nothing in the zip depends on a site but the interpreter."""
    text = f'[store]\npath = "/store"\n[install]\npython = {json.dumps(python)}\n'
    nodezip.build(config.parse(text, "nodezip.py"), output, {"udi-run": Path(udi_run).read_bytes()})


if __name__ == "__main__":
    main(*sys.argv[1:])
