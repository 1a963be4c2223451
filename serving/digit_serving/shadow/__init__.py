"""Shadow: a second version answers a share of the calls as well, unseen by the callers, and is compared."""
