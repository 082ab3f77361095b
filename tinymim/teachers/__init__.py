"""Who teaches: cards, and weights of every published form, found, checked and loaded."""
