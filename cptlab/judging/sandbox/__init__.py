"""What holds a program in."""
