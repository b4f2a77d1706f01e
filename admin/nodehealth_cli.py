"""`udi-nodehealth check|admindown|recover`: the check as a node runs it, and an operator's part in dirty nodes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from alps.nids import folded, node_name, parse_nodes
from nodehealth import check
from nodehealth.out_of_service import mark_admindown
from nodehealth.recovery import recover
from udi.command import Deadline
from udi.config import DEFAULT_PATH, SiteConfig, load
from udiroot.errors import TeardownIncomplete, UdiError, complain

PROGRAM = "udi-nodehealth"
BY_HAND = "0"
"""The job that a node is recorded under when an operator marks it: no job has this number."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is the error's, or 0."""
    options = _parser().parse_args(argv)
    try:
        site = load(options.config)
        if options.command == "check":
            return _check(site)
        if options.command == "admindown":
            return _admindown(site, options.nodes, options.reason)
        return recover_nodes(site, options.nodes)
    except UdiError as error:
        return complain(PROGRAM, error)


def _check(site: SiteConfig) -> int:
    """The check of this very node, as NHC wants it: 0 or 1, and one line."""
    node = site.node
    return check.run(["--root", node.root, "--run", node.run, "--nid-file", node.nid_file])


def recover_nodes(site: SiteConfig, nodes: str) -> int:
    """Bring nodes back and say so, one line a node; raises TeardownIncomplete where one is not clean."""
    nids = parse_nodes(nodes)
    troubled = []
    for node in recover(site, nids, Deadline(3 * site.alps.fanout_deadline)):
        if node.trouble:
            troubled.append(node.nid)
        sys.stdout.write(f"{node_name(node.nid)}: {node.trouble or 'clean and up'}\n")
    if troubled:
        raise TeardownIncomplete(f"{folded(troubled)} not brought back")
    return 0


def _admindown(site: SiteConfig, nodes: str, reason: str) -> int:
    nids = parse_nodes(nodes)
    mark_admindown(site, BY_HAND, dict.fromkeys(nids, reason), Deadline(2 * site.alps.command_deadline))
    sys.stdout.write(f"{folded(nids)} admindown: {reason}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="clean compute nodes, and what to do about dirty ones")
    parser.add_argument("--config", default=DEFAULT_PATH, help="the site's configuration")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="on a node: is anything of ours left? exit 0 clean, 1 dirty")
    down = commands.add_parser("admindown", help="take nodes out of service, with a reason")
    down.add_argument("nodes", metavar="NODES", help="nid[00012-00013] or 12-13,17")
    down.add_argument("--reason", default="marked by an operator")
    back = commands.add_parser("recover", help="clean, check and bring back nodes that we took out of service")
    back.add_argument("nodes", metavar="NODES", help="nid[00012-00013] or 12-13,17")
    return parser


if __name__ == "__main__":
    sys.exit(main())
