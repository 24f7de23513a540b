"""Model files from a hub: the table of models, downloads, and the folder that they are installed in."""
