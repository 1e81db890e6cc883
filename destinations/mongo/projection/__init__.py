"""Turns the mirrored rows of a person into the records that the Patient Passport shows."""
