"""`make soak`: mixed jobs for fifteen minutes while something is killed every twenty seconds."""
