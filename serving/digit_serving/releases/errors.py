"""What can go wrong with a release; each message is one line for the person at the terminal."""


class ReleaseError(Exception):
    """Says what is wrong, and what was changed if anything was."""
