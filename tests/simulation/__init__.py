"""The reader, two topics and a destination in one process, against a MySQL and a Kafka that are
played.

The only fakes of this project; tests/integration/test_fakes.py holds their answers to those of the
real servers. Everything between them is the product's own code. One seed is one history: what
happens between two calls that leave a process, where a reader dies, what Kafka loses, is drawn from
it, so a failing seed can be run again: ``python -m tests.simulation 17``.
"""
