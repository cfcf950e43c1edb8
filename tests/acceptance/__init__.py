"""Tests of the running service: real gateway, Redis and workers."""
