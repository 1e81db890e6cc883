"""Product code broken on purpose, one promise at a time: the test of the promise must turn red."""
