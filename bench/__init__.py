"""Benchmarks: each module measures one thing and saves it in bench/results."""
