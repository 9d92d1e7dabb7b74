"""The state engine: values under keys, kept whatever dies."""
