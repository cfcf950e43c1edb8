"""What `deploy/rehearse` does: perform Dockerfiles without an engine, and try what they make."""
