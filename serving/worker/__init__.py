"""The data-plane process."""
