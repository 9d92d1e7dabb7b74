"""What is measured, one module per peer: each is a process at either end."""
