"""Jobs on a site with a scanner: what the prologue does, by the report in the store and the pin of the submission."""

from __future__ import annotations

from tests.system.cray import Cray

_LOOK = "aprun -n 1 -b /bin/sh -c 'cat /etc/marker'\n"


def test_a_job_past_the_submit_filter_is_judged_when_it_starts(cray: Cray) -> None:
    cray.pull("alice", "unseen:1")
    with cray.configured({"audit": {"command": ["/bin/true"], "unscanned": "refuse"}}):
        with cray.without_filter():
            past = cray.run("alice", _LOOK, image="unseen:1")
        assert past.codes and cray.marker("unseen:1") not in past.output
        assert "has not been scanned, which this site refuses for new jobs" in past.error
        accepted = cray.run("alice", _LOOK, image="unseen:1")  # by the gateway, which pinned it
        assert accepted.status == "0" and cray.marker("unseen:1") in accepted.output
    cray.assert_clean()
