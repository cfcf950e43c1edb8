"""The embedded Redis with what `yolo-queue up` has beside it, as a process that can be killed.

python -m tests.support.watched_redis FOLDER PORT
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tests.support.stack import free_port
from yolo_queue.server.embedded_redis import EmbeddedRedis
from yolo_queue.server.watchdog import Watchdog


def main() -> None:
    folder, port = sys.argv[1:]
    server = EmbeddedRedis(Path(folder), int(port), max_bytes=1 << 30)
    server.start()
    # No service answers there: it watches the disk and asks again, as while workers load a model.
    Watchdog(f"http://127.0.0.1:{free_port()}", server).start()
    print(server.pid, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
