"""Read-only studies of trained ViTs: where they look, how their heads differ, what they represent."""
