"""Engines, the site's node, and the run of a whole task."""
