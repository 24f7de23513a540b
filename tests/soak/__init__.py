"""`make soak`: mixed jobs for a quarter of an hour while something is killed every twenty seconds."""
