"""What gateway and workers share: settings, errors, logs, the life of a job, access to Redis."""
