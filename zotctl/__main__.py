"""`python -m zotctl` is `zotctl`."""

from __future__ import annotations

from zotctl.cli import main

if __name__ == "__main__":
    main()
