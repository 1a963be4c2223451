"""Report of a fit: one HTML page and PNG plots."""
