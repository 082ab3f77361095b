"""``python -m tinymim``."""

from tinymim.cli import command

command()
