"""Everything that extends Celery and kombu: transport, consumer, pool, requests, heartbeat."""
