"""Lines of indented blocks of pages: which of them a test types as they stand, and which another test runs in its own
words. What a page has besides says of itself that it was not run.

By page, what begins a line: its first word or words.
"""

from __future__ import annotations

import re
from pathlib import Path

_ROOT = Path(__file__).parents[1]

CRAY: dict[str, tuple[str, ...]] = {
    "README.md": ("udi", "docker", "qsub", "aprun", "[", "udi-admin"),
    "docs/images.md": ("udi", "udi-admin", "qsub", "echo", "runuser"),
    "docs/environment-files.md": ("udi", "qsub"),
    "docs/modules.md": ("udi", "qsub", "udi-admin"),
    "docs/metrics.md": ("chgrp", "udi-admin"),
    "docs/gateway.md": ("udi-admin", "udi-gateway"),
    "docs/upgrade.md": ("/opt/udi-0.2/bin/udi-admin", "udi-admin"),
}
"""On a Cray: tests/system/typed_pages.py, typed_lines_of_users.py and software_replaced.py."""
SLURM: dict[str, tuple[str, ...]] = {
    "README.md": ("sbatch", "srun", "salloc"),
    "docs/environment-files.md": ("sbatch",),
    "docs/modules.md": ("sbatch",),
}
"""On a Slurm cluster: tests/slurm/typed_lines.py."""
ELSEWHERE: dict[tuple[str, str], str] = {
    ("README.md", "make demo"): "xcsim/demo.py",
    ("README.md", "make demo-slurm"): "slurmsim/demo.py",
    ("README.md", "make test"): "Makefile",
    ("README.md", ".venv/bin/xcsim"): "tests/system/typed_pages.py",
    ("README.md", "echo"): "tests/system/typed_pages.py",
    ("docs/audit.md", '{"scanner"'): "tests/gateway/test_audit.py",
    ("docs/gateway.md", "#!/bin/sh"): "tests/slurm/test_workers_by_ssh.py",
    ("docs/gateway.md", '{"event"'): "tests/unit/test_gateway_document.py",
    ("docs/images.md", "docker save"): "tests/gateway/test_archives.py",
    ("docs/images.md", "podman save"): "tests/gateway/test_archives.py",
    ("docs/images.md", "sbatch"): "tests/slurm/test_chos.py",
    ("docs/install.md", "sudo make bundle"): "Makefile",
    ("docs/install-hooks.md", "/var/spool/torque/mom_priv/udi-prologue"): "tests/system/test_jobs_beside_site_hooks.py",
    ("docs/install-hooks.md", "mkdir -p"): "tests/system/test_jobs_beside_site_hooks.py",
    ("docs/pynamic.md", ".venv/bin/python -m benchmarks.pynamic"): "Makefile",
    ("docs/pynamic.md", "make"): "Makefile",
    ("docs/signatures.md", "openssl"): "tests/system/typed_terminals.py",
    ("docs/signatures.md", "printf"): "tests/system/typed_terminals.py",
    ("docs/upgrade.md", "sha256sum"): "tests/upgrade/hosts.py",
    ("docs/upgrade.md", "tar"): "tests/upgrade/hosts.py",
    ("docs/upgrade.md", "./shifter-xc-*/install.sh"): "tests/upgrade/hosts.py",
    ("docs/upgrade.md", "/opt/udi/venv/bin/udi-admin"): "tests/upgrade/hosts.py",
}
"""Which file runs what it is about."""


def lines(page: str, *programs: str) -> list[str]:
    """The lines of a page's indented blocks that begin with one of these programs, without their comments."""
    begin = "|".join(map(re.escape, programs))
    found = re.findall(rf"^    (?: {{3}})?((?:{begin}) .*)$", (_ROOT / page).read_text(), re.MULTILINE)
    return [re.sub(r"\s+#.*", "", line) for line in found]
