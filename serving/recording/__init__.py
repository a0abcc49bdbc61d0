"""What is kept of every prediction."""
