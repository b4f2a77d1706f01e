"""Whether an image store is what it must be when nobody works on it: complete, and nothing else in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_SUFFIXES = (".squashfs", ".ext4", ".json", ".report", ".inventory", ".directory")


def faults_of(store: Path) -> list[str]:
    """What is wrong with it, a line for each fault."""
    images, refs = store / "images", store / "refs"
    found = []
    facts = {path.stem: json.loads(path.read_text()) for path in images.glob("*.json") if "." not in path.stem}
    for path in sorted(refs.iterdir()):
        if path.suffix != ".json":
            found.append(f"refs/{path.name} is no name of an image")
        elif json.loads(path.read_text())["id"] not in facts:
            found.append(f"refs/{path.name} names an image that is not there")
    for image_id, fact in facts.items():
        path = images / f"{image_id}.{fact['format']}"
        if not path.exists():
            found.append(f"images/{image_id} has facts and no file")
        elif path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != fact["sha256"]:
            found.append(f"images/{path.name} is not what its facts say")
    for path in sorted(images.iterdir()):
        if path.name.split(".")[0] not in facts and path.name != ".waiting":
            found.append(f"images/{path.name} is left over")
        elif path.suffix not in _SUFFIXES and path.name != ".waiting":
            found.append(f"images/{path.name} is unfinished")
    return found
