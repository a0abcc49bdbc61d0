"""The management process."""
