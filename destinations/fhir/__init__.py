"""FHIR R4: Observation, Condition and MedicationStatement, on a server or as NDJSON files."""
