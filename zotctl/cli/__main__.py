"""`python -m zotctl.cli`, as the command `zotctl`."""

from zotctl.cli import main

main()
