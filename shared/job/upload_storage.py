"""Where uploads are kept: as one string each, beside the job's record.

All access to stored uploads goes through here. `storing` and `fetching` are commands, so
that an upload travels in the same round trip as its job's script; the scripts delete an upload when
its job ends, or keep it as a dead letter's (`drop_image`, `keep_dead_image` in lua/common.lua).
"""

from __future__ import annotations

from shared.job.keys import Keys, job_of
from shared.job.record import NewJob
from shared.job.scripts import Command


def storing(keys: Keys, job: NewJob, ttl_seconds: int) -> Command:
    """Store the upload of a job that is about to be accepted. Its time to live removes uploads that
    are never accepted."""
    return ("SET", keys.image(job.task_id), job.image, "EX", ttl_seconds)


def fetching(keys: Keys, task_id: str) -> Command:
    """The reply is the upload as it came, or None if it is gone. `task_id`: of a job or a part."""
    return ("GET", keys.image(job_of(task_id)))


def dropping(keys: Keys, task_ids: list[str]) -> Command:
    """For uploads whose jobs Redis had no room for."""
    return ("UNLINK", *map(keys.image, task_ids))
