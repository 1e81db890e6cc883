"""Takes over, once, the records that the documented timestamp-based sync wrote into the Patient
Passport.
"""
