"""Formats of Whisper models, each a module with DESCRIPTION, `recognises` and `read`."""
