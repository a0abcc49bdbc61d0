"""Who gets which version: pure decisions."""
