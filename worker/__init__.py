"""The Celery workers: each pool process owns one YOLO instance. Never imports the gateway."""
