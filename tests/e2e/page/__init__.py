"""The page in a real Chromium, in front of real services. A package, so that its tests share one browser."""
