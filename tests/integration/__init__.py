"""Tests of several modules together, on a real Redis that the suite starts."""
