"""A person's own photo: read safely, its faces found and framed, and turned into codes."""
