"""What a process says of itself over HTTP and to its launcher."""
