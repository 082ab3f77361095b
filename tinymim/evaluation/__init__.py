"""Evaluation callbacks beside any method: nearest neighbours, named test sets."""
