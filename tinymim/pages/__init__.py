"""Findings as pages: figures that print small and are told apart by any eye, and one HTML file that holds them."""

from tinymim.pages.document import Document, Picture, Section, Table

__all__ = ["Document", "Picture", "Section", "Table"]
