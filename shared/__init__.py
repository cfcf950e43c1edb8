"""What the gateway and the workers both know: settings, job states, Redis keys, errors."""
