"""Reading and writing files, for programs written for the original's low-level API."""
