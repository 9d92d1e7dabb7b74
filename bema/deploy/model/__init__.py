"""The nouns of deploying, and the pure functions over them."""
