"""Existing clients, used unchanged."""
