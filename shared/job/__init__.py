"""The life of a job: its record, its keys in Redis, and every transition between its states."""
