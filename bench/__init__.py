"""Measures ditochat beside other chat servers: `python -m bench`, or `make bench`."""
