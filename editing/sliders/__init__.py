"""Named directions in the latent codes: fitted, measured, and moved along."""
