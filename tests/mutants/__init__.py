"""Product code broken on purpose, one promise at a time: a test that watches the promise must turn
red.
"""
