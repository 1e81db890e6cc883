"""What MongoDB must hold, worked out from the hospitals' tables a second time. Imports nothing of
the project.
"""
