"""What tests, chaos and benchmarks start the real thing with."""
