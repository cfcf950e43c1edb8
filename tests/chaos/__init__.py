"""The promises of docs/reliability.md, tried by killing things: `make chaos`."""
