"""The Vision Transformer as the project reads it: what it is made of, and which places in it can be read."""
