"""Tests of single modules, in this process and without a server."""
