"""Site modules on a node: those whose needs it meets become parts of its plan, before anything is set up.

Whether a node has what a module needs is looked at once, so that mounts, kernel modules and environment agree.
"""

import os
import stat

from udiroot.errors import NotFound, SetupFailed, printable
from udiroot.plan import NodePlan, PlanFile, PlanMount, PlanStep
from udiroot.plan_modules import CHANGES, PlanModule

RUN = "/opt/udi/etc/run"
"""The file of a root from which `udi-run` takes the environment."""
PLACE = "\0modules\0"
"""In the text of that file: where the environment of modules goes. No record of a value is a word alone."""
USED = "UDI_MODULES_USED"
"""The variable that names the modules of a root."""


def settle(plan: NodePlan) -> None:
    """Make the modules that this node can have parts of the plan, which then has none of its own.

    Raises NotFound where the user has asked for one that is not for this node.
    """
    here = [module for module in plan.site_modules if _is_here(module)]
    records = [f"{kind} {first}" for module in here for kind, first, _ in module.of_kind(*CHANGES)]
    records.append(f"set {USED}={';'.join(module.name for module in here)}")
    plan.files = tuple(_with_records(file, records) if file.path == RUN else file for file in plan.files)
    plan.sites += tuple(
        PlanMount(source, target, kind == "ro", module.name)
        for module in here
        for kind, source, target in module.of_kind("ro", "rw")
    )
    plan.steps += tuple(
        PlanStep("after", "link", text, path) for module in here for _, text, path in module.of_kind("link")
    )
    kernel = (path for module in here for _, path, _ in module.of_kind("kernel"))
    plan.modules = tuple(dict.fromkeys((*plan.modules, *kernel)))
    plan.site_modules = ()


def _is_here(module: PlanModule) -> bool:
    missing = next((path for kind, path, _ in module.of_kind("present", "device") if not _has(path, kind)), "")
    if missing and module.asked:
        raise NotFound(
            f"module {printable(module.name)} is not for this node, which has no {printable(missing)}; request nodes"
            " that have it, or leave the module out"
        )
    return not missing


def _has(path: str, kind: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return kind == "present" or stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _with_records(file: PlanFile, records: "list[str]") -> PlanFile:
    before, place, after = file.text.partition(PLACE)
    if not place:
        raise SetupFailed(f"plan: {file.path} has no place for the environment of modules")
    return PlanFile(file.path, file.mode, "\0".join((before, *records, after)))
