"""Read-only studies of trained ViTs: where their heads look, how alike their layers are, what distillation carried
over."""
