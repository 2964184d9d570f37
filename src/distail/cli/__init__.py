"""The command line."""

from distail.cli.app import main

__all__ = ["main"]
