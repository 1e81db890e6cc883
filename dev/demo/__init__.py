"""``make demo``: two hospitals at work, and the Passport that follows them, on real servers."""

from dev.demo.show import run

__all__ = ["run"]
