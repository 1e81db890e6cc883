"""The whole way: real servers, every role a process of its own, MongoDB compared with the oracle."""
