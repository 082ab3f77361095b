"""The papers as a program: studies, chains, analyses and scaling in one run, and one report of what they say."""
