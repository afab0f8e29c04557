"""``python -m app``; also runs as a plain script, which is how a Hugging Face Space starts it."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):
    # As a plain script Python looks for modules beside this file; ours are found from the folder above.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from app.cli import main

if __name__ == "__main__":
    sys.exit(main())
