"""Figures of a service with a million jobs: `make bench-scale`."""
