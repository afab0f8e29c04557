"""What judges an image during text edits and inversion: measured attributes, captions of them, and the two networks."""
