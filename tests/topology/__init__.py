"""Tests of other topologies: Sentinel, TLS, several hosts or queues, little disk or memory."""
