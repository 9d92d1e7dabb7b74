"""The one place that knows which bema this is; the build reads it from here."""

VERSION = "0.1.0"
