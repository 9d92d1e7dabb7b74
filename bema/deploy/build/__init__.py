"""Making a version runnable: interpreters, environments and the platform layer."""
