"""What must hold between the parts of a configuration: pure functions to lists of problems."""
