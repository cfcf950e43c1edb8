"""One module per path of the HTTP API."""
