"""The whole way: real servers, a process of its own for every role, MongoDB against the oracle."""
