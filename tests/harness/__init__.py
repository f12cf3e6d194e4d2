"""What the tests run the server with: real processes, real clients, and a network that can fail."""
