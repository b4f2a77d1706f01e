"""`udi-admin job`: all that is known of one job, on one screen."""

from __future__ import annotations

import json

import click

from admin.console.program import site_of
from admin.console.screen import show, terminal
from admin.job.screen import screen
from admin.job.story import as_document, read_story
from admin.job.why import why
from admin.seams.asked import Asked
from admin.seams.machines import machine_of
from admin.seams.managers import manager_of
from udi.commandline import json_option
from udiroot.trials import is_trial


@click.command()
@click.argument("job", metavar="ID")
@json_option
@click.pass_obj
def job(config_path: str, job: str, as_json: bool) -> None:
    """Show all that is known of the job ID: from its submission to its teardown, and why it is where it is.

    The sources are the workload manager, the job's state and plan, the records of failed starts and of dirty nodes,
    the image store, and the hooks' log with the files that it was rotated to. Run it on the host whose hooks run the
    job: on a Cray the MOM node, with native Slurm the node. Elsewhere only what the workload manager
    says is known, and with native Slurm each node has the state and the log of its own part of a job. The last line,
    "why", has the cause and who must act.

    \b
    With --json, the keys are:
      job, user, image, image_id, pinned, facts, volumes, modules
                        what was asked for
      phase, since, nodes, allocation, plan
                        its state on this host; empty where it has none
      setup, teardown   how the last ones went, in words
      failed_starts     count, is_held, reason, since
      failures          time, why and owner of each start or teardown that failed
      dirty             nodes that it left so: node, jobs, reason, since, in_service
      manager           fate (queued, held, running, ended or empty), and what the
                        workload manager says
      events            time, program, job, level, message
      why               cause, owner (user, site, node or nobody), remedy
      troubles          what could not be read

    Times are seconds since 1970. Exit code 3 where nothing is known of the job.
    """
    site = site_of(config_path)
    asked = Asked(job) if is_trial(job) else manager_of(site).asked(machine_of(site), job)
    story = read_story(site, asked)
    cause = why(story)
    if as_json:
        click.echo(json.dumps(as_document(story, cause.as_json()), indent=1, sort_keys=True))
        return
    show(terminal(), *screen(story, cause))
