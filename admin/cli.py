"""`udi-admin`: what an operator does on the MOM node."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from admin.installing import install, install_sshd, render_below
from admin.nodehealth_cli import recover_nodes
from admin.sitefiles import site_files
from admin.status import read_status
from alps.nids import folded
from jobs.takedown import take_down
from jobs.tries import forget_hold
from udi import nodezip
from udi.accounts import store_owner
from udi.command import Deadline
from udi.config import DEFAULT_PATH, SiteConfig, load
from udi.log import start_log
from udi.planning import node_templates
from udiroot.errors import ConfigError, TeardownIncomplete, UdiError, UsageError, complain

PROGRAM = "udi-admin"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is the error's, or 0."""
    options = _parser().parse_args(argv)
    try:
        site = load(options.config)
        start_log(site, PROGRAM)
        done: int = _COMMANDS[options.command](site, options)
    except UdiError as error:
        return complain(PROGRAM, error)
    return done


def _check_config(site: SiteConfig, options: argparse.Namespace) -> int:
    """What `load` cannot know: whether accounts, programs and templates are there."""
    store_owner(site.store.account)
    node_templates(site)
    site_files(site, options.config)
    programs = {
        "alps.xtxqtcmd": site.alps.xtxqtcmd,
        "alps.xtprocadmin": site.alps.xtprocadmin,
        "torque.qstat": site.torque.qstat,
        "torque.qhold": site.torque.qhold,
        "install.python": site.install.python,
        **({"install.ssh": f"{site.install.ssh}/sshkey"} if site.ssh.enabled else {}),
        **({"alps.apstat": site.alps.apstat} if "apstat" in site.alps.sources else {}),
        **({"alps.apbasil": site.alps.apbasil} if "basil" in site.alps.sources else {}),
    }
    for key, path in programs.items():
        if not os.access(path, os.X_OK):
            raise ConfigError(f"{options.config}: {key}: {path} is not a program here")
    if not os.path.isdir(site.store.path):
        raise ConfigError(f"{options.config}: store.path: {site.store.path} is not a folder here")
    _say(f"{options.config}: well")
    return 0


def _render(site: SiteConfig, options: argparse.Namespace) -> int:
    for path in render_below(os.path.abspath(options.output), site_files(site, options.config)):
        _say(path)
    return 0


def _install(site: SiteConfig, options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise UsageError("installing needs root, who must own the hooks")
    root = os.path.abspath(options.root).rstrip("/")
    changed = install(root, site_files(site, options.config))
    nodezip.build(site, root + site.install.zip)
    if site.ssh.enabled or os.path.isdir(site.install.ssh_built):
        changed += install_sshd(site.install.ssh_built, root + site.install.ssh)
    for path in [*changed, root + site.install.zip]:
        _say(path)
    return 0


def _status(site: SiteConfig, options: argparse.Namespace) -> int:
    status = read_status(site)
    _say(status.as_json() if options.json else status.as_text())
    return 0


def _recover(site: SiteConfig, options: argparse.Namespace) -> int:
    return recover_nodes(site, options.nodes)


def _takedown(site: SiteConfig, options: argparse.Namespace) -> int:
    """What the job's epilogue would have done, had it lived: after a crash of the MOM node, say."""
    done = take_down(site, options.job, Deadline(site.torque.epilogue_deadline))
    if done.trouble:
        raise done.trouble
    if done.dirty:
        raise TeardownIncomplete(f"{folded(done.dirty)} not clean, and set admindown", "udi-admin status tells why")
    forget_hold(site, options.job)
    _say(f"nothing is left of job {options.job}")
    return 0


_COMMANDS = {
    "check-config": _check_config,
    "render": _render,
    "install": _install,
    "status": _status,
    "takedown": _takedown,
    "recover": _recover,
}


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="shifter-xc for operators")
    parser.add_argument("--config", default=DEFAULT_PATH, help="the site's configuration")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check-config", help="is the configuration well, and what it names there?")
    render = commands.add_parser("render", help="write the site's files below a folder, to be looked at")
    render.add_argument("--output", required=True, metavar="DIR")
    put = commands.add_parser("install", help="put the site's files and the node software in place")
    put.add_argument("--root", default="/", metavar="DIR", help="the root that they go below")
    status = commands.add_parser("status", help="jobs, held jobs, and nodes that are out of service")
    status.add_argument("--json", action="store_true", help="one JSON object")
    down = commands.add_parser("takedown", help="take a job down whose epilogue never ran, and forget why it was held")
    down.add_argument("job", metavar="JOB")
    back = commands.add_parser("recover", help="clean, check and bring back nodes that we took out of service")
    back.add_argument("nodes", metavar="NODES", help="nid[00012-00013] or 12-13,17")
    return parser


if __name__ == "__main__":
    sys.exit(main())
