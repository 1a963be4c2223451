"""`digits models`: which published versions are served, under which labels."""
