"""The Python type of a MongoDB document, for the pure modules too, which don't know the client."""

from typing import Any

Document = dict[str, Any]
