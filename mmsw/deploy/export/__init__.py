"""Networks as files that other runtimes run: programs, files of each format, what runs them."""

from .program import Program
from .programs import program_of

__all__ = ['Program', 'program_of']
