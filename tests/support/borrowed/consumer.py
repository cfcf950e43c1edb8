"""Of Celery and kombu: the consumer in the worker's parent, its event loop and its timer."""

from __future__ import annotations

from tests.support.borrowed.base import Borrowed, Name

CONSUMER = "celery.worker.consumer.consumer:Consumer"
LOOP = "celery.worker.loops:asynloop"
CONNECTION = "kombu.connection:Connection"
HUB = "kombu.asynchronous.hub:Hub"
TIMER = "kombu.asynchronous.timer"

BORROWED = [
    Borrowed(
        "celery",
        "worker/celery_ext",
        "a message that cannot be a task becomes a dead letter; Celery would end over it",
        [
            Name(LOOP, says="obj.create_task_handler()"),
            Name(f"{CONSUMER}.create_task_handler", says="def on_task_received(message):"),
            Name(f"{CONSUMER}.create_task_handler", says="return on_unknown_task(None, message"),
            Name(f"{CONSUMER}.create_task_handler", says="return on_invalid_task(payload, message"),
            Name(f"{CONSUMER}.on_unknown_task", takes="body message exc"),
            Name(f"{CONSUMER}.on_invalid_task", takes="body message exc"),
        ],
    ),
    Borrowed(
        "celery",
        "worker/celery_ext",
        "after a lost connection Celery resets the loop; our consumer names it to kombu again",
        [
            Name(LOOP, says="hub.reset()"),
            Name(f"{CONSUMER}.__init__", says="self.hub = hub"),
        ],
    ),
    Borrowed(
        "kombu",
        "worker/celery_ext",
        "kombu forgets a loop that was reset, and acknowledgements would be sent one by one",
        [
            Name(f"{HUB}._close", says="set_event_loop(None)"),
            Name("kombu.asynchronous:set_event_loop", takes="loop"),
            Name("kombu.asynchronous:get_event_loop", takes=""),
        ],
    ),
    Borrowed(
        "celery",
        "worker/celery_ext",
        "a worker tries Redis again every 2 s; Celery's pause grows to 30 s",
        [
            Name(f"{CONSUMER}.ensure_connected", takes="conn"),
            Name(f"{CONSUMER}.ensure_connected", says="conn.ensure_connection(_error_handler,"),
            Name(f"{CONSUMER}.connection_for_read", says="self.ensure_connected("),
        ],
    ),
    Borrowed(
        "kombu",
        "worker/celery_ext",
        "the pause between attempts to reach Redis is given as arguments",
        [
            Name(
                f"{CONNECTION}.ensure_connection", says="self._ensure_connection(*args, **kwargs)"
            ),
            Name(
                f"{CONNECTION}._ensure_connection",
                takes="interval_start interval_step interval_max ...",
            ),
        ],
    ),
    Borrowed(
        "celery",
        "worker/celery_ext",
        "a Redis that refuses writes is asked once a second and not as fast as it answers",
        [
            Name(f"{CONSUMER}.on_connection_error_before_connected", takes="exc"),
            Name(f"{CONSUMER}.start", says="self.on_connection_error_before_connected(exc)"),
        ],
    ),
    Borrowed(
        "celery",
        "worker/celery_ext",
        "events are sent twice a second; at every turn of the loop they take 40 % of the parent",
        [
            Name(f"{CONSUMER}.on_send_event_buffered", takes=""),
            Name(f"{CONSUMER}._flush_events", takes=""),
            Name(f"{CONSUMER}.__init__", says="self.timer = timer"),
            Name(
                "celery.worker.consumer.events:Events.start",
                says="on_send_buffered=c.on_send_event_buffered",
            ),
        ],
    ),
    Borrowed(
        "celery",
        "worker/celery_ext",
        "the heartbeat runs on the consumer's timer and listens on the channel that jobs come by",
        [
            Name(f"{CONSUMER}.__init__", says="self.controller = controller"),
            Name(f"{CONSUMER}.__init__", says="self.pool = pool"),
            Name("celery.worker.consumer.tasks:Tasks.start", says="c.task_consumer = "),
            Name("celery.worker.components:Consumer.create", says="timer=w.timer"),
        ],
    ),
    Borrowed(
        "kombu",
        "worker/celery_ext",
        "a cancelled timer stays for its whole time limit, half a KB a job, if we do not remove it",
        [
            Name(f"{TIMER}:scheduled._fields", holds=("eta", "priority", "entry").__eq__),
            Name(f"{TIMER}:Timer.enter_at", takes="entry eta priority ..."),
            Name(f"{TIMER}:Entry.cancelled"),
        ],
    ),
    Borrowed(
        "kombu",
        "worker/celery_ext",
        "heartbeats, events and acknowledgements are timed by kombu",
        [
            Name(f"{TIMER}:Timer.call_repeatedly", takes="secs fun args ..."),
            Name(f"{TIMER}:Timer.call_after", takes="secs fun ..."),
            Name(f"{HUB}.call_later", takes="delay callback ..."),
        ],
    ),
    Borrowed(
        "kombu",
        "worker/celery_ext",
        "a dropped message is acknowledged, and its text becomes a dead letter",
        [
            Name("kombu.message:Message.ack_log_error", takes="logger errors ..."),
            Name("kombu.message:Message.payload"),
            Name("kombu.transport.virtual.base:Message.__init__", says="self._raw = payload"),
            Name(f"{CONSUMER}.__init__", says="self.connection_errors = "),
        ],
    ),
]
