"""Releases, `digits models`: versions on disk, their labels, and the model server's models.config."""
