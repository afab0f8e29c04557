"""Everything a person can do to a face, without a user interface; :mod:`editing.service` is the door."""
