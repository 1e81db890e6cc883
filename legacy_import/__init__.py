"""Takes over, once, what the documented timestamp-based sync wrote into the Patient Passport."""
