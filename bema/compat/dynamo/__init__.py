"""Names for people who come from Dynamo: replace the import root `dynamo` by `bema.compat.dynamo`."""
