"""Recipes: composed of YAML files and options, and checked before anything is built."""
