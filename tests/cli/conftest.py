"""The stand-in for ``tinymim`` of the tests of plans."""

from tests.experiments.conftest import fake

__all__ = ["fake"]
