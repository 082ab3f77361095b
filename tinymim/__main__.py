"""``python -m tinymim``."""

import sys

if not sys.flags.safe_path:  # Python put the working folder first, whose files libraries would take for their own
    sys.path.pop(0)

from tinymim.cli.main import command

command()
