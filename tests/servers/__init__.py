"""Real servers for tests and development."""
