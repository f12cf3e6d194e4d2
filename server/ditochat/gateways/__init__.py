"""The protocols that clients speak; each translates its own to *publish* and *join*."""
