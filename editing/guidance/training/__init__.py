"""Training of the bundled judges."""
