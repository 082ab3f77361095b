"""``python -m tinymim``."""

from tinymim.cli.main import command

command()
