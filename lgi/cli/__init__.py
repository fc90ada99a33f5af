"""The command line: one file for each noun, and printing."""
