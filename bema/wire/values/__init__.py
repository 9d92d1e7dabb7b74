"""Values to payloads and back, and the refusal of what would not come back equal."""
