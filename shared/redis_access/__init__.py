"""How Redis is reached: its URL, and clients with timeouts and fail-over."""
