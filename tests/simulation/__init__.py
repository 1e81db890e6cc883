"""The reader and a destination in one process, against simulated servers of MySQL and Kafka.

These are the only fakes of this project. `tests/integration/test_fakes.py` asks them and the real
servers the same questions and compares the answers. Everything between them is the product's own
code.

One seed is one history. What happens between two calls that leave a process, where a reader dies
and what Kafka loses is drawn from the seed. So a failing seed can be run again:
``python -m tests.simulation 17``.
"""
