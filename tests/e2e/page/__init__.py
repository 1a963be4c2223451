"""The gateway's pages in Chromium, with real services. A package, so that all its tests share one browser."""
