"""Of kombu: its transport over Redis."""

from __future__ import annotations

from tests.support.borrowed.base import Borrowed, Name

REDIS = "kombu.transport.redis"
VIRTUAL = "kombu.transport.virtual.base"

BORROWED = [
    Borrowed(
        "kombu",
        "worker/celery_ext",
        "Celery gets our transport by the scheme of the broker's URL",
        [
            Name("kombu.transport:resolve_transport", says="TRANSPORT_ALIASES[transport]"),
            Name(
                "kombu.transport:TRANSPORT_ALIASES", holds={"redis", "rediss", "sentinel"}.issubset
            ),
            Name(f"{REDIS}:Transport.Channel"),
            Name(f"{REDIS}:Transport.connection_errors"),
            Name(f"{REDIS}:SentinelTransport.Channel"),
            Name(f"{REDIS}:SentinelChannel.QoS"),
            Name(f"{VIRTUAL}:Channel.qos", says="self.QoS(self)"),
        ],
    ),
    Borrowed(
        "kombu",
        "worker/celery_ext",
        "an inline task's acknowledgement shares a round trip with the next copy",
        [
            Name(f"{VIRTUAL}:Channel.basic_ack", says="self.qos.ack(delivery_tag)"),
            Name(f"{REDIS}:QoS.ack", takes="delivery_tag"),
            Name(f"{VIRTUAL}:QoS.ack", takes="delivery_tag"),
            Name(f"{REDIS}:QoS.append", says="with self.pipe_or_acquire() as pipe:"),
            Name(f"{REDIS}:QoS.pipe_or_acquire", takes="pipe client"),
            Name(f"{REDIS}:QoS._remove_from_indices", says=".zrem(self.unacked_index_key, "),
            Name(f"{REDIS}:QoS._remove_from_indices", says=".hdel(self.unacked_key, "),
            Name(f"{REDIS}:Channel.__init__", says="self.Client = self._get_client()"),
            Name(f"{REDIS}:Channel.pool"),
        ],
    ),
    Borrowed(
        "kombu",
        "worker/celery_ext",
        "a message of which Redis has no copy is given back from memory",
        [
            Name(f"{REDIS}:QoS.restore_unacked", says="self.restore_by_tag(tag, client=client)"),
            Name(f"{REDIS}:QoS.reject", says="self.restore_by_tag(delivery_tag, leftmost=True)"),
            Name(f"{REDIS}:QoS.restore_by_tag", takes="tag client leftmost"),
            Name(f"{REDIS}:QoS.restore_by_tag", says="self.channel._do_restore_message("),
            Name(
                f"{REDIS}:Channel._do_restore_message",
                takes="payload exchange routing_key pipe leftmost",
            ),
            Name(f"{REDIS}:Channel.conn_or_acquire", takes="client"),
            Name(f"{VIRTUAL}:Message.__init__", says="self._raw = payload"),
        ],
    ),
    Borrowed(
        "kombu",
        "worker/celery_ext",
        "work goes on while Redis is full: a message of which it keeps no copy is run all the same",
        [
            Name(f"{VIRTUAL}:Channel.basic_consume", says="self.qos.append("),
            Name(f"{REDIS}:QoS.append", takes="message delivery_tag"),
            Name(f"{VIRTUAL}:QoS.append", takes="message delivery_tag"),
        ],
    ),
    Borrowed(
        "kombu",
        "worker/celery_ext",
        "a worker that stops while Redis is away does not wait for it to give messages back",
        [
            Name(f"{VIRTUAL}:QoS.__init__", says="self._delivered = OrderedDict()"),
            Name(f"{VIRTUAL}:QoS.__init__", says="self.restore_unacked_once"),
            Name(f"{REDIS}:QoS.restore_unacked_once", takes="stderr"),
            Name(f"{REDIS}:QoS.restore_unacked", says="for tag in self._delivered"),
        ],
    ),
    Borrowed(
        "kombu",
        "worker/celery_ext",
        "a message that is no JSON becomes a dead letter; kombu would end the worker over it",
        [
            Name(f"{REDIS}:Channel.__init__", says="'BRPOP': self._brpop_read"),
            Name(f"{REDIS}:Channel._brpop_read", takes=""),
            Name(f"{REDIS}:Channel._brpop_read", says="self.client.parse_response("),
            Name(f"{REDIS}:Channel._brpop_read", says="dest, item = dest__item"),
            Name(f"{REDIS}:Channel._brpop_read", says="loads(bytes_to_str(item))"),
        ],
    ),
    Borrowed(
        "kombu",
        "worker/celery_ext",
        "a message without what kombu looks for becomes a dead letter and does not end the worker",
        [
            Name(f"{REDIS}:Channel._brpop_read", says="self.connection._deliver("),
            Name(f"{VIRTUAL}:Transport._deliver", takes="message queue"),
            Name(f"{VIRTUAL}:Transport.__init__", says="self.channels = []"),
        ],
    ),
    Borrowed(
        "kombu",
        "worker/celery_ext",
        "a channel can be closed while Redis is away, and a second time",
        [
            Name(f"{REDIS}:Channel.close", says="if self._in_poll: try: self._brpop_read()"),
            Name(f"{REDIS}:Channel._brpop_read", says="raise Empty()"),
            Name(f"{REDIS}:Channel.__init__", says="self.connection_errors = "),
        ],
    ),
]
