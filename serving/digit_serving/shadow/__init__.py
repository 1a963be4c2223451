"""Shadow: a second version answers a share of the calls, unseen by the callers, and is compared."""
