"""How a version is reached."""
