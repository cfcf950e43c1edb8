from __future__ import annotations

import inspect

from api.problems import STATUS
from shared import errors


def test_every_error_that_a_request_can_meet_has_a_status() -> None:
    def tree(kind: type) -> set[type]:
        return {kind}.union(*(tree(child) for child in kind.__subclasses__()))

    never_http = tree(errors.JobError) | tree(errors.StartupError)
    abstract = {errors.YoloQueueError, errors.UploadError}
    demanded = tree(errors.YoloQueueError) - never_http - abstract
    assert demanded == set(STATUS)


def test_codes_are_stable_names_and_unique() -> None:
    kinds = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.YoloQueueError) and "code" in vars(kind)
    ]
    codes = [kind.code for kind in kinds]
    assert len(codes) == len(set(codes))
    assert all(code.replace("_", "").isalpha() and code.islower() for code in codes)
