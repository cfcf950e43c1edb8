"""What the code uses of libraries that they do not promise to keep: private names, methods that we
override, and behaviour that is not documented. One module for each part of the service.

tests/integration/test_borrowed.py looks each of them up in the installed version.
"""

from __future__ import annotations

from tests.support.borrowed import broker, consumer, gateway, model, pool, redis_access, up
from tests.support.borrowed.base import Borrowed

BORROWED: list[Borrowed] = [
    *(*pool.BORROWED, *consumer.BORROWED, *broker.BORROWED, *redis_access.BORROWED),
    *(*model.BORROWED, *gateway.BORROWED, *up.BORROWED),
]

UNBOUNDED = {
    "torch": "its package index decides (CPU or CUDA); worker/model checks the operation at load",
    "torchvision": "each version requires one version of torch",
}
"""Libraries without an upper bound in pyproject.toml, and why."""
