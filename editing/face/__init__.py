"""One face being edited, as plain data: what it started from, what was done, and what that means in latent codes."""
