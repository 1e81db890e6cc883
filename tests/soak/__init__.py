"""Hours of work in minutes: two hospitals, every role twice, and a random fault all the while."""
