"""The meeting place: where instances register, are found, and are called."""
