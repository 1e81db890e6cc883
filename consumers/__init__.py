"""Reads changes from Kafka, looks up what they mean and writes them to a destination."""
