"""What an audit asks of a repair if nothing else is asked for. Light, since the command line shows it in its help."""

KEEP_HEAD = 80.0
"""Percent of the head's images whose target favored the label, and still must."""
