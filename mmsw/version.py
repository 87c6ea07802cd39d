"""The version of mmsw, kept apart so that packaging can read it without importing mmsw."""

__version__ = '0.1.0'
