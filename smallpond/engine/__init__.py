"""Runs the program of one task, in the process that it is called in."""
