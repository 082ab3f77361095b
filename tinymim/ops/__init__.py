"""Operations worth a file of their own: the relation loss."""

from tinymim.ops.relation_kl import relation_kl

__all__ = ["relation_kl"]
