"""Small nodes for common tasks."""
