"""Clients that exist, unchanged."""
