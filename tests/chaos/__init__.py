"""Tries the promises of docs/reliability.md by killing things: `make chaos`."""
