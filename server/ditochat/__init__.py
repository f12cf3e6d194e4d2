"""A realtime chat backend: one ordered log in Redis, followed by any number of instances."""

__all__ = ["__version__"]

__version__ = "0.1.0"
