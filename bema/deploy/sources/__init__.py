"""Where the code of a deployment comes from, and what it says of itself."""
