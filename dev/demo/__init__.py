"""``make demo``: two hospitals at work, and the Passport that follows them, on real servers."""
