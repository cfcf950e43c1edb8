"""Tests of deploy/kubernetes as kustomize renders it. Its README says what only a cluster shows."""
