"""Tests of what is deployed: Dockerfiles, Compose, Kubernetes, monitoring."""
