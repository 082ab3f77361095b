"""MkDocs hook: docstrings name classes as ``:class:`Target```, which editors know and Markdown does not."""

from __future__ import annotations

import re
from typing import Any


def on_page_content(html: str, **page: Any) -> str:
    """Leave the name of a role's target alone, and one colon before a block of code."""
    html = re.sub(r":(?:class|func|meth|data|mod|attr):<code>[~!]?", "<code>", html)
    return re.sub(r"::(</p>\s*<(?:pre|div))", r":\1", html)
