"""A hospital: an OpenMRS database made from nothing, and a clinic that goes on working in it."""

from dev.hospital.clinic import Action, Clinic
from dev.hospital.people import NATIONAL_ID_TYPE, OPENMRS_ID_TYPE
from dev.hospital.registration import passport_patients, registrable
from dev.hospital.seed import NOW, create

__all__ = [
    "NATIONAL_ID_TYPE",
    "NOW",
    "OPENMRS_ID_TYPE",
    "Action",
    "Clinic",
    "create",
    "passport_patients",
    "registrable",
]
