"""Realm-specific IP of Cray's cluster compatibility mode: on while a job has its root, where the node has it.

The kernel's switch takes `ccm on` and `ccm off`. It exists only where the site loaded the RSIP client.
"""

import os


def switch(path: str, on: bool) -> None:
    """Turn it on or off at `path`; nothing where the node has no such switch."""
    if not path:
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        os.write(descriptor, b"ccm on" if on else b"ccm off")
    finally:
        os.close(descriptor)
