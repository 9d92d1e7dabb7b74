"""One process among others: its module channel, what it serves, and the watch over its event loop."""
