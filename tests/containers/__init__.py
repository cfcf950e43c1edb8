"""Tests of the images and of docker-compose.yml on a real container engine: `make containers`."""
