"""How good a network is: nearest neighbours, named test sets."""
