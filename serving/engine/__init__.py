"""What starts, supervises and scales the processes."""
