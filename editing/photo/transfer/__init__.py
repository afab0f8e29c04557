"""The edit transfer: what the model changes is done to the photo, whose pixels stay."""
