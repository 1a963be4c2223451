"""Client of the digit-reading service."""
