"""The node side: what runs as root on every compute node of a job.

Standard library only, and as little of it as possible: every node pays for each import at each job. It is shipped as
one precompiled zip together with `nodehealth.check`.
"""
