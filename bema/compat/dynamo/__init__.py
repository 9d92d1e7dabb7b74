"""The names of Dynamo: replace the import root `dynamo` by `bema.compat.dynamo`."""
