"""The nouns: what every room speaks of. Pure data and pure functions; no event loop, socket or process starts here."""
