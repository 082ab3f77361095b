"""The command line: one file a command. Imports everything, and is imported by nothing."""
