"""The checks that a hospital, its server and Kafka must pass before a reader relies on them."""
