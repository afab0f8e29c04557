"""Everything a person can do to a face, without a user interface; :mod:`editing.service` is the door."""

import memorygan  # noqa: F401 (sets how OpenMP waits, before torch is imported)
