"""``python -m tinymim``."""

import sys

from tinymim.cli import main

sys.exit(main())
