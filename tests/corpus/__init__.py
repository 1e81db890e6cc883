"""Questions of real forms, each with an answer and what a clinician would say that it becomes.

README.md says what a case is, where they come from and how to judge a new one.
"""
