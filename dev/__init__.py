"""The local stack of real servers and a hospital that goes on working, for tests and the demo."""
