"""What tests, chaos runs and benchmarks share. Nothing in here is a test."""
