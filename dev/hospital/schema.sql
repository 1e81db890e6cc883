-- OpenMRS platform 2.8: the tables that observations are kept in and read with, their indexes and foreign keys.
-- Tables refer to each other in a circle (users and person): run it with foreign_key_checks = 0.

CREATE TABLE users (
  user_id INT NOT NULL AUTO_INCREMENT, system_id VARCHAR(50) NOT NULL, username VARCHAR(50),
  password VARCHAR(128), salt VARCHAR(128), secret_question VARCHAR(255), secret_answer VARCHAR(255),
  creator INT NOT NULL DEFAULT 0, date_created DATETIME NOT NULL, changed_by INT, date_changed DATETIME,
  person_id INT NOT NULL, retired TINYINT(1) NOT NULL DEFAULT 0, retired_by INT, date_retired DATETIME,
  retire_reason VARCHAR(255), uuid CHAR(38) NOT NULL, activation_key VARCHAR(255), email VARCHAR(255),
  PRIMARY KEY (user_id), UNIQUE KEY uq_users_email (email), KEY person_id_for_user (person_id),
  KEY user_creator (creator), KEY user_who_changed_user (changed_by),
  KEY user_who_retired_this_user (retired_by),
  CONSTRAINT person_id_for_user FOREIGN KEY (person_id) REFERENCES person (person_id),
  CONSTRAINT user_creator FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT user_who_changed_user FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT user_who_retired_this_user FOREIGN KEY (retired_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE person (
  person_id INT NOT NULL AUTO_INCREMENT, gender VARCHAR(50), birthdate DATE,
  birthdate_estimated TINYINT(1) NOT NULL DEFAULT 0, dead TINYINT(1) NOT NULL DEFAULT 0,
  death_date DATETIME, cause_of_death INT, creator INT, date_created DATETIME NOT NULL, changed_by INT,
  date_changed DATETIME, voided TINYINT(1) NOT NULL DEFAULT 0, voided_by INT, date_voided DATETIME,
  void_reason VARCHAR(255), uuid CHAR(38) NOT NULL, deathdate_estimated TINYINT(1) NOT NULL DEFAULT 0,
  birthtime TIME, cause_of_death_non_coded VARCHAR(255),
  PRIMARY KEY (person_id), UNIQUE KEY uq_person_uuid (uuid), KEY person_birthdate (birthdate),
  KEY person_death_date (death_date), KEY person_died_because (cause_of_death),
  KEY user_who_changed_person (changed_by), KEY user_who_created_person (creator),
  KEY user_who_voided_person (voided_by),
  CONSTRAINT person_died_because FOREIGN KEY (cause_of_death) REFERENCES concept (concept_id),
  CONSTRAINT user_who_changed_person FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT user_who_created_person FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT user_who_voided_person FOREIGN KEY (voided_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE person_name (
  person_name_id INT NOT NULL AUTO_INCREMENT, preferred TINYINT(1) NOT NULL DEFAULT 0,
  person_id INT NOT NULL, prefix VARCHAR(50), given_name VARCHAR(50), middle_name VARCHAR(50),
  family_name_prefix VARCHAR(50), family_name VARCHAR(50), family_name2 VARCHAR(50),
  family_name_suffix VARCHAR(50), degree VARCHAR(50), creator INT NOT NULL DEFAULT 0,
  date_created DATETIME NOT NULL, voided TINYINT(1) NOT NULL DEFAULT 0, voided_by INT,
  date_voided DATETIME, void_reason VARCHAR(255), changed_by INT, date_changed DATETIME,
  uuid CHAR(38) NOT NULL,
  PRIMARY KEY (person_name_id), UNIQUE KEY uq_person_name_uuid (uuid), KEY family_name2 (family_name2),
  KEY first_name (given_name), KEY last_name (family_name), KEY middle_name (middle_name),
  KEY name_for_person (person_id), KEY user_who_made_name (creator), KEY user_who_voided_name (voided_by),
  CONSTRAINT name_for_person FOREIGN KEY (person_id) REFERENCES person (person_id) ON UPDATE CASCADE,
  CONSTRAINT user_who_made_name FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT user_who_voided_name FOREIGN KEY (voided_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE patient (
  patient_id INT NOT NULL, creator INT NOT NULL DEFAULT 0, date_created DATETIME NOT NULL, changed_by INT,
  date_changed DATETIME, voided TINYINT(1) NOT NULL DEFAULT 0, voided_by INT, date_voided DATETIME,
  void_reason VARCHAR(255), allergy_status VARCHAR(50) NOT NULL DEFAULT 'Unknown',
  PRIMARY KEY (patient_id), KEY user_who_changed_pat (changed_by), KEY user_who_created_patient (creator),
  KEY user_who_voided_patient (voided_by),
  CONSTRAINT person_id_for_patient FOREIGN KEY (patient_id) REFERENCES person (person_id) ON UPDATE CASCADE,
  CONSTRAINT user_who_changed_pat FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT user_who_created_patient FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT user_who_voided_patient FOREIGN KEY (voided_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE patient_identifier_type (
  patient_identifier_type_id INT NOT NULL AUTO_INCREMENT, name VARCHAR(50) NOT NULL, description TEXT,
  format VARCHAR(255), check_digit TINYINT(1) NOT NULL DEFAULT 0, creator INT NOT NULL DEFAULT 0,
  date_created DATETIME NOT NULL, required TINYINT(1) NOT NULL DEFAULT 0, format_description VARCHAR(255),
  validator VARCHAR(200), location_behavior VARCHAR(50), retired TINYINT(1) NOT NULL DEFAULT 0,
  retired_by INT, date_retired DATETIME, retire_reason VARCHAR(255), uuid CHAR(38) NOT NULL,
  uniqueness_behavior VARCHAR(50), date_changed DATETIME, changed_by INT,
  PRIMARY KEY (patient_identifier_type_id), UNIQUE KEY uq_patient_identifier_type_uuid (uuid),
  KEY patient_identifier_type_changed_by (changed_by),
  KEY patient_identifier_type_retired_status (retired), KEY type_creator (creator),
  KEY user_who_retired_patient_identifier_type (retired_by),
  CONSTRAINT patient_identifier_type_changed_by FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT type_creator FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT user_who_retired_patient_identifier_type FOREIGN KEY (retired_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE patient_identifier (
  patient_identifier_id INT NOT NULL AUTO_INCREMENT, patient_id INT NOT NULL DEFAULT 0,
  identifier VARCHAR(50) NOT NULL, identifier_type INT NOT NULL DEFAULT 0,
  preferred TINYINT(1) NOT NULL DEFAULT 0, location_id INT NULL DEFAULT 0, creator INT NOT NULL DEFAULT 0,
  date_created DATETIME NOT NULL, date_changed DATETIME, changed_by INT,
  voided TINYINT(1) NOT NULL DEFAULT 0, voided_by INT, date_voided DATETIME, void_reason VARCHAR(255),
  uuid CHAR(38) NOT NULL, patient_program_id INT,
  PRIMARY KEY (patient_identifier_id), UNIQUE KEY uq_patient_identifier_uuid (uuid),
  KEY defines_identifier_type (identifier_type), KEY identifier_creator (creator),
  KEY identifier_name (identifier), KEY identifier_voider (voided_by),
  KEY idx_patient_identifier_patient (patient_id), KEY patient_identifier_changed_by (changed_by),
  KEY patient_identifier_ibfk_2 (location_id), KEY patient_identifier_program_id_fk (patient_program_id),
  CONSTRAINT defines_identifier_type FOREIGN KEY (identifier_type) REFERENCES patient_identifier_type (patient_identifier_type_id),
  CONSTRAINT fk_patient_id_patient_identifier FOREIGN KEY (patient_id) REFERENCES patient (patient_id),
  CONSTRAINT identifier_creator FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT identifier_voider FOREIGN KEY (voided_by) REFERENCES users (user_id),
  CONSTRAINT patient_identifier_changed_by FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT patient_identifier_ibfk_2 FOREIGN KEY (location_id) REFERENCES location (location_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE location (
  location_id INT NOT NULL AUTO_INCREMENT, name VARCHAR(255) NOT NULL, description VARCHAR(255),
  address1 VARCHAR(255), address2 VARCHAR(255), city_village VARCHAR(255), state_province VARCHAR(255),
  postal_code VARCHAR(50), country VARCHAR(50), latitude VARCHAR(50), longitude VARCHAR(50),
  creator INT NOT NULL DEFAULT 0, date_created DATETIME NOT NULL, county_district VARCHAR(255),
  address3 VARCHAR(255), address4 VARCHAR(255), address5 VARCHAR(255), address6 VARCHAR(255),
  retired TINYINT(1) NOT NULL DEFAULT 0, retired_by INT, date_retired DATETIME, retire_reason VARCHAR(255),
  parent_location INT, uuid CHAR(38) NOT NULL, changed_by INT, date_changed DATETIME,
  address7 VARCHAR(255), address8 VARCHAR(255), address9 VARCHAR(255), address10 VARCHAR(255),
  address11 VARCHAR(255), address12 VARCHAR(255), address13 VARCHAR(255), address14 VARCHAR(255),
  address15 VARCHAR(255), location_type_concept_id INT,
  PRIMARY KEY (location_id), UNIQUE KEY uq_location_uuid (uuid), KEY location_changed_by (changed_by),
  KEY location_retired_status (retired), KEY location_type_fk (location_type_concept_id),
  KEY name_of_location (name), KEY parent_location (parent_location),
  KEY user_who_created_location (creator), KEY user_who_retired_location (retired_by),
  CONSTRAINT location_changed_by FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT parent_location FOREIGN KEY (parent_location) REFERENCES location (location_id),
  CONSTRAINT user_who_created_location FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT user_who_retired_location FOREIGN KEY (retired_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE provider (
  provider_id INT NOT NULL AUTO_INCREMENT, person_id INT, name VARCHAR(255), identifier VARCHAR(255),
  creator INT NOT NULL, date_created DATETIME NOT NULL, changed_by INT, date_changed DATETIME,
  retired TINYINT(1) NOT NULL DEFAULT 0, retired_by INT, date_retired DATETIME, retire_reason VARCHAR(255),
  uuid CHAR(38) NOT NULL, role_id INT, speciality_id INT, provider_role_id INT,
  PRIMARY KEY (provider_id), UNIQUE KEY uq_provider_uuid (uuid),
  KEY fk_provider_provider_role_id (provider_role_id), KEY provider_changed_by_fk (changed_by),
  KEY provider_creator_fk (creator), KEY provider_person_id_fk (person_id),
  KEY provider_retired_by_fk (retired_by), KEY provider_role_id_fk (role_id),
  KEY provider_speciality_id_fk (speciality_id),
  CONSTRAINT provider_changed_by_fk FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT provider_creator_fk FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT provider_person_id_fk FOREIGN KEY (person_id) REFERENCES person (person_id),
  CONSTRAINT provider_retired_by_fk FOREIGN KEY (retired_by) REFERENCES users (user_id),
  CONSTRAINT provider_role_id_fk FOREIGN KEY (role_id) REFERENCES concept (concept_id),
  CONSTRAINT provider_speciality_id_fk FOREIGN KEY (speciality_id) REFERENCES concept (concept_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE encounter_type (
  encounter_type_id INT NOT NULL AUTO_INCREMENT, name VARCHAR(50) NOT NULL, description TEXT,
  creator INT NOT NULL DEFAULT 0, date_created DATETIME NOT NULL, retired TINYINT(1) NOT NULL DEFAULT 0,
  retired_by INT, date_retired DATETIME, retire_reason VARCHAR(255), uuid CHAR(38) NOT NULL,
  edit_privilege VARCHAR(255), view_privilege VARCHAR(255), changed_by INT, date_changed DATETIME,
  PRIMARY KEY (encounter_type_id), UNIQUE KEY uq_encounter_type_name (name),
  UNIQUE KEY uq_encounter_type_uuid (uuid), KEY encounter_type_changed_by (changed_by),
  KEY encounter_type_retired_status (retired),
  KEY privilege_which_can_edit_encounter_type (edit_privilege),
  KEY privilege_which_can_view_encounter_type (view_privilege), KEY user_who_created_type (creator),
  KEY user_who_retired_encounter_type (retired_by),
  CONSTRAINT encounter_type_changed_by FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT user_who_created_type FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT user_who_retired_encounter_type FOREIGN KEY (retired_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE encounter_role (
  encounter_role_id INT NOT NULL AUTO_INCREMENT, name VARCHAR(255) NOT NULL, description VARCHAR(1024),
  creator INT NOT NULL, date_created DATETIME NOT NULL, changed_by INT, date_changed DATETIME,
  retired TINYINT(1) NOT NULL DEFAULT 0, retired_by INT, date_retired DATETIME, retire_reason VARCHAR(255),
  uuid CHAR(38) NOT NULL,
  PRIMARY KEY (encounter_role_id), UNIQUE KEY uq_encounter_role_name (name),
  UNIQUE KEY uq_encounter_role_uuid (uuid), KEY encounter_role_changed_by_fk (changed_by),
  KEY encounter_role_creator_fk (creator), KEY encounter_role_retired_by_fk (retired_by),
  CONSTRAINT encounter_role_changed_by_fk FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT encounter_role_creator_fk FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT encounter_role_retired_by_fk FOREIGN KEY (retired_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE encounter (
  encounter_id INT NOT NULL AUTO_INCREMENT, encounter_type INT NOT NULL, patient_id INT NOT NULL DEFAULT 0,
  location_id INT, form_id INT, encounter_datetime DATETIME NOT NULL, creator INT NOT NULL DEFAULT 0,
  date_created DATETIME NOT NULL, voided TINYINT(1) NOT NULL DEFAULT 0, voided_by INT,
  date_voided DATETIME, void_reason VARCHAR(255), changed_by INT, date_changed DATETIME, visit_id INT,
  uuid CHAR(38) NOT NULL,
  PRIMARY KEY (encounter_id), UNIQUE KEY uq_encounter_uuid (uuid), KEY encounter_changed_by (changed_by),
  KEY encounter_datetime_idx (encounter_datetime), KEY encounter_form (form_id),
  KEY encounter_ibfk_1 (creator), KEY encounter_location (location_id), KEY encounter_patient (patient_id),
  KEY encounter_type_id (encounter_type), KEY encounter_visit_id_fk (visit_id),
  KEY user_who_voided_encounter (voided_by),
  CONSTRAINT encounter_changed_by FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT encounter_ibfk_1 FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT encounter_location FOREIGN KEY (location_id) REFERENCES location (location_id),
  CONSTRAINT encounter_patient FOREIGN KEY (patient_id) REFERENCES patient (patient_id) ON UPDATE CASCADE,
  CONSTRAINT encounter_type_id FOREIGN KEY (encounter_type) REFERENCES encounter_type (encounter_type_id),
  CONSTRAINT encounter_visit_id_fk FOREIGN KEY (visit_id) REFERENCES visit (visit_id),
  CONSTRAINT user_who_voided_encounter FOREIGN KEY (voided_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE encounter_provider (
  encounter_provider_id INT NOT NULL AUTO_INCREMENT, encounter_id INT NOT NULL, provider_id INT NOT NULL,
  encounter_role_id INT NOT NULL, creator INT NOT NULL DEFAULT 0, date_created DATETIME NOT NULL,
  changed_by INT, date_changed DATETIME, voided TINYINT(1) NOT NULL DEFAULT 0, date_voided DATETIME,
  voided_by INT, void_reason VARCHAR(255), uuid CHAR(38) NOT NULL,
  PRIMARY KEY (encounter_provider_id), UNIQUE KEY uq_encounter_provider_uuid (uuid),
  KEY encounter_id_fk (encounter_id), KEY encounter_provider_changed_by (changed_by),
  KEY encounter_provider_creator (creator), KEY encounter_provider_voided_by (voided_by),
  KEY encounter_role_id_fk (encounter_role_id), KEY provider_id_fk (provider_id),
  CONSTRAINT encounter_id_fk FOREIGN KEY (encounter_id) REFERENCES encounter (encounter_id),
  CONSTRAINT encounter_provider_changed_by FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT encounter_provider_creator FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT encounter_provider_voided_by FOREIGN KEY (voided_by) REFERENCES users (user_id),
  CONSTRAINT encounter_role_id_fk FOREIGN KEY (encounter_role_id) REFERENCES encounter_role (encounter_role_id),
  CONSTRAINT provider_id_fk FOREIGN KEY (provider_id) REFERENCES provider (provider_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE visit_type (
  visit_type_id INT NOT NULL AUTO_INCREMENT, name VARCHAR(255) NOT NULL, description VARCHAR(1024),
  creator INT NOT NULL, date_created DATETIME NOT NULL, changed_by INT, date_changed DATETIME,
  retired TINYINT(1) NOT NULL DEFAULT 0, retired_by INT, date_retired DATETIME, retire_reason VARCHAR(255),
  uuid CHAR(38) NOT NULL,
  PRIMARY KEY (visit_type_id), UNIQUE KEY uq_visit_type_uuid (uuid),
  KEY visit_type_changed_by (changed_by), KEY visit_type_creator (creator),
  KEY visit_type_retired_by (retired_by),
  CONSTRAINT visit_type_changed_by FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT visit_type_creator FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT visit_type_retired_by FOREIGN KEY (retired_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE visit (
  visit_id INT NOT NULL AUTO_INCREMENT, patient_id INT NOT NULL, visit_type_id INT NOT NULL,
  date_started DATETIME NOT NULL, date_stopped DATETIME, indication_concept_id INT, location_id INT,
  creator INT NOT NULL, date_created DATETIME NOT NULL, changed_by INT, date_changed DATETIME,
  voided TINYINT(1) NOT NULL DEFAULT 0, voided_by INT, date_voided DATETIME, void_reason VARCHAR(255),
  uuid CHAR(38) NOT NULL,
  PRIMARY KEY (visit_id), UNIQUE KEY uq_visit_uuid (uuid), KEY visit_changed_by_fk (changed_by),
  KEY visit_creator_fk (creator), KEY visit_indication_concept_fk (indication_concept_id),
  KEY visit_location_fk (location_id), KEY visit_patient_index (patient_id),
  KEY visit_type_fk (visit_type_id), KEY visit_voided_by_fk (voided_by),
  CONSTRAINT visit_changed_by_fk FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT visit_creator_fk FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT visit_indication_concept_fk FOREIGN KEY (indication_concept_id) REFERENCES concept (concept_id),
  CONSTRAINT visit_location_fk FOREIGN KEY (location_id) REFERENCES location (location_id),
  CONSTRAINT visit_patient_fk FOREIGN KEY (patient_id) REFERENCES patient (patient_id),
  CONSTRAINT visit_type_fk FOREIGN KEY (visit_type_id) REFERENCES visit_type (visit_type_id),
  CONSTRAINT visit_voided_by_fk FOREIGN KEY (voided_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE concept_datatype (
  concept_datatype_id INT NOT NULL AUTO_INCREMENT, name VARCHAR(255) NOT NULL, hl7_abbreviation VARCHAR(3),
  description VARCHAR(255), creator INT NOT NULL DEFAULT 0, date_created DATETIME NOT NULL,
  retired TINYINT(1) NOT NULL DEFAULT 0, retired_by INT, date_retired DATETIME, retire_reason VARCHAR(255),
  uuid CHAR(38) NOT NULL,
  PRIMARY KEY (concept_datatype_id), UNIQUE KEY uq_concept_datatype_uuid (uuid),
  KEY concept_datatype_creator (creator), KEY concept_datatype_name_index (name),
  KEY concept_datatype_retired_status (retired), KEY user_who_retired_concept_datatype (retired_by),
  CONSTRAINT concept_datatype_creator FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT user_who_retired_concept_datatype FOREIGN KEY (retired_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE concept_class (
  concept_class_id INT NOT NULL AUTO_INCREMENT, name VARCHAR(255) NOT NULL, description VARCHAR(255),
  creator INT NOT NULL DEFAULT 0, date_created DATETIME NOT NULL, retired TINYINT(1) NOT NULL DEFAULT 0,
  retired_by INT, date_retired DATETIME, retire_reason VARCHAR(255), uuid CHAR(38) NOT NULL,
  date_changed DATETIME, changed_by INT,
  PRIMARY KEY (concept_class_id), UNIQUE KEY uq_concept_class_uuid (uuid),
  KEY concept_class_changed_by (changed_by), KEY concept_class_creator (creator),
  KEY concept_class_name_index (name), KEY concept_class_retired_status (retired),
  KEY user_who_retired_concept_class (retired_by),
  CONSTRAINT concept_class_changed_by FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT concept_class_creator FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT user_who_retired_concept_class FOREIGN KEY (retired_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE concept (
  concept_id INT NOT NULL AUTO_INCREMENT, retired TINYINT(1) NOT NULL DEFAULT 0, short_name VARCHAR(255),
  description TEXT, form_text TEXT, datatype_id INT NOT NULL DEFAULT 0, class_id INT NOT NULL DEFAULT 0,
  is_set TINYINT(1) NOT NULL DEFAULT 0, creator INT NOT NULL DEFAULT 0, date_created DATETIME NOT NULL,
  version VARCHAR(50), changed_by INT, date_changed DATETIME, retired_by INT, date_retired DATETIME,
  retire_reason VARCHAR(255), uuid CHAR(38) NOT NULL,
  PRIMARY KEY (concept_id), UNIQUE KEY uq_concept_uuid (uuid), KEY concept_classes (class_id),
  KEY concept_creator (creator), KEY concept_datatypes (datatype_id),
  KEY user_who_changed_concept (changed_by), KEY user_who_retired_concept (retired_by),
  CONSTRAINT concept_classes FOREIGN KEY (class_id) REFERENCES concept_class (concept_class_id),
  CONSTRAINT concept_creator FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT concept_datatypes FOREIGN KEY (datatype_id) REFERENCES concept_datatype (concept_datatype_id),
  CONSTRAINT user_who_changed_concept FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT user_who_retired_concept FOREIGN KEY (retired_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE concept_name (
  concept_name_id INT NOT NULL AUTO_INCREMENT, concept_id INT, name VARCHAR(255) NOT NULL,
  locale VARCHAR(50) NOT NULL, locale_preferred TINYINT(1) NULL DEFAULT 0, creator INT NOT NULL DEFAULT 0,
  date_created DATETIME NOT NULL, concept_name_type VARCHAR(50), voided TINYINT(1) NOT NULL DEFAULT 0,
  voided_by INT, date_voided DATETIME, void_reason VARCHAR(255), uuid CHAR(38) NOT NULL,
  date_changed DATETIME, changed_by INT,
  PRIMARY KEY (concept_name_id), UNIQUE KEY uq_concept_name_uuid (uuid),
  KEY concept_name_changed_by (changed_by), KEY name_for_concept (concept_id), KEY name_of_concept (name),
  KEY user_who_created_name (creator), KEY user_who_voided_this_name (voided_by),
  CONSTRAINT concept_name_changed_by FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT name_for_concept FOREIGN KEY (concept_id) REFERENCES concept (concept_id),
  CONSTRAINT user_who_created_name FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT user_who_voided_this_name FOREIGN KEY (voided_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE concept_numeric (
  concept_id INT NOT NULL DEFAULT 0, hi_absolute DOUBLE, hi_critical DOUBLE, hi_normal DOUBLE,
  low_absolute DOUBLE, low_critical DOUBLE, low_normal DOUBLE, units VARCHAR(50),
  allow_decimal TINYINT(1) NULL DEFAULT 0, display_precision INT,
  PRIMARY KEY (concept_id),
  CONSTRAINT numeric_attributes FOREIGN KEY (concept_id) REFERENCES concept (concept_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE concept_set (
  concept_set_id INT NOT NULL AUTO_INCREMENT, concept_id INT NOT NULL DEFAULT 0,
  concept_set INT NOT NULL DEFAULT 0, sort_weight DOUBLE, creator INT NOT NULL DEFAULT 0,
  date_created DATETIME NOT NULL, uuid CHAR(38) NOT NULL,
  PRIMARY KEY (concept_set_id), UNIQUE KEY concept_set_uuid_index (uuid),
  KEY idx_concept_set_concept (concept_id), KEY has_a (concept_set), KEY user_who_created (creator),
  CONSTRAINT has_a FOREIGN KEY (concept_set) REFERENCES concept (concept_id),
  CONSTRAINT user_who_created FOREIGN KEY (creator) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE concept_map_type (
  concept_map_type_id INT NOT NULL AUTO_INCREMENT, name VARCHAR(255) NOT NULL, description VARCHAR(255),
  creator INT NOT NULL, date_created DATETIME NOT NULL, changed_by INT, date_changed DATETIME,
  is_hidden TINYINT(1) NOT NULL DEFAULT 0, retired TINYINT(1) NOT NULL DEFAULT 0, retired_by INT,
  date_retired DATETIME, retire_reason VARCHAR(255), uuid CHAR(38) NOT NULL,
  PRIMARY KEY (concept_map_type_id), UNIQUE KEY uq_concept_map_type_name (name),
  UNIQUE KEY uq_concept_map_type_uuid (uuid), KEY mapped_user_changed_concept_map_type (changed_by),
  KEY mapped_user_creator_concept_map_type (creator), KEY mapped_user_retired_concept_map_type (retired_by),
  CONSTRAINT mapped_user_changed_concept_map_type FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT mapped_user_creator_concept_map_type FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT mapped_user_retired_concept_map_type FOREIGN KEY (retired_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE concept_reference_source (
  concept_source_id INT NOT NULL AUTO_INCREMENT, name VARCHAR(50) NOT NULL, description TEXT NOT NULL,
  hl7_code VARCHAR(50), creator INT NOT NULL DEFAULT 0, date_created DATETIME NOT NULL,
  retired TINYINT(1) NOT NULL DEFAULT 0, retired_by INT, date_retired DATETIME, retire_reason VARCHAR(255),
  uuid CHAR(38) NOT NULL, unique_id VARCHAR(250), date_changed DATETIME, changed_by INT,
  PRIMARY KEY (concept_source_id), UNIQUE KEY uq_concept_reference_source_hl7_code (hl7_code),
  UNIQUE KEY uq_concept_reference_source_uuid (uuid),
  UNIQUE KEY uq_concept_reference_source_unique_id (unique_id),
  KEY concept_reference_source_changed_by (changed_by), KEY concept_source_creator (creator),
  KEY user_who_retired_concept_source (retired_by),
  CONSTRAINT concept_reference_source_changed_by FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT concept_source_creator FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT user_who_retired_concept_source FOREIGN KEY (retired_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE concept_reference_term (
  concept_reference_term_id INT NOT NULL AUTO_INCREMENT, concept_source_id INT NOT NULL, name VARCHAR(255),
  code VARCHAR(255) NOT NULL, version VARCHAR(255), description VARCHAR(255), creator INT NOT NULL,
  date_created DATETIME NOT NULL, date_changed DATETIME, changed_by INT,
  retired TINYINT(1) NOT NULL DEFAULT 0, retired_by INT, date_retired DATETIME, retire_reason VARCHAR(255),
  uuid CHAR(38) NOT NULL,
  PRIMARY KEY (concept_reference_term_id), UNIQUE KEY uq_concept_reference_term_uuid (uuid),
  KEY idx_code_concept_reference_term (code), KEY mapped_concept_source (concept_source_id),
  KEY mapped_user_changed (changed_by), KEY mapped_user_creator (creator),
  KEY mapped_user_retired (retired_by),
  CONSTRAINT mapped_concept_source FOREIGN KEY (concept_source_id) REFERENCES concept_reference_source (concept_source_id),
  CONSTRAINT mapped_user_changed FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT mapped_user_creator FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT mapped_user_retired FOREIGN KEY (retired_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE concept_reference_map (
  concept_map_id INT NOT NULL AUTO_INCREMENT, concept_reference_term_id INT NOT NULL,
  concept_map_type_id INT NOT NULL DEFAULT 1, creator INT NOT NULL DEFAULT 0,
  date_created DATETIME NOT NULL, concept_id INT NOT NULL DEFAULT 0, changed_by INT, date_changed DATETIME,
  uuid CHAR(38) NOT NULL,
  PRIMARY KEY (concept_map_id), UNIQUE KEY uq_concept_reference_map_uuid (uuid), KEY map_creator (creator),
  KEY map_for_concept (concept_id), KEY mapped_concept_map_type (concept_map_type_id),
  KEY mapped_concept_reference_term (concept_reference_term_id),
  KEY mapped_user_changed_ref_term (changed_by),
  CONSTRAINT map_creator FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT map_for_concept FOREIGN KEY (concept_id) REFERENCES concept (concept_id),
  CONSTRAINT mapped_concept_map_type FOREIGN KEY (concept_map_type_id) REFERENCES concept_map_type (concept_map_type_id),
  CONSTRAINT mapped_concept_reference_term FOREIGN KEY (concept_reference_term_id) REFERENCES concept_reference_term (concept_reference_term_id),
  CONSTRAINT mapped_user_changed_ref_term FOREIGN KEY (changed_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE drug (
  drug_id INT NOT NULL AUTO_INCREMENT, concept_id INT NOT NULL DEFAULT 0, name VARCHAR(255),
  combination TINYINT(1) NOT NULL DEFAULT 0, dosage_form INT, maximum_daily_dose DOUBLE,
  minimum_daily_dose DOUBLE, route INT, creator INT NOT NULL DEFAULT 0, date_created DATETIME NOT NULL,
  retired TINYINT(1) NOT NULL DEFAULT 0, changed_by INT, date_changed DATETIME, retired_by INT,
  date_retired DATETIME, retire_reason VARCHAR(255), uuid CHAR(38) NOT NULL, strength VARCHAR(255),
  dose_limit_units INT,
  PRIMARY KEY (drug_id), UNIQUE KEY uq_drug_uuid (uuid), KEY dosage_form_concept (dosage_form),
  KEY drug_changed_by (changed_by), KEY drug_creator (creator),
  KEY drug_dose_limit_units_fk (dose_limit_units), KEY drug_retired_by (retired_by),
  KEY primary_drug_concept (concept_id), KEY route_concept (route),
  CONSTRAINT dosage_form_concept FOREIGN KEY (dosage_form) REFERENCES concept (concept_id),
  CONSTRAINT drug_changed_by FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT drug_creator FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT drug_dose_limit_units_fk FOREIGN KEY (dose_limit_units) REFERENCES concept (concept_id),
  CONSTRAINT drug_retired_by FOREIGN KEY (retired_by) REFERENCES users (user_id),
  CONSTRAINT primary_drug_concept FOREIGN KEY (concept_id) REFERENCES concept (concept_id),
  CONSTRAINT route_concept FOREIGN KEY (route) REFERENCES concept (concept_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE order_type (
  order_type_id INT NOT NULL AUTO_INCREMENT, name VARCHAR(255) NOT NULL, description TEXT,
  creator INT NOT NULL DEFAULT 0, date_created DATETIME NOT NULL, retired TINYINT(1) NOT NULL DEFAULT 0,
  retired_by INT, date_retired DATETIME, retire_reason VARCHAR(255), uuid CHAR(38) NOT NULL,
  java_class_name VARCHAR(255) NOT NULL, parent INT, changed_by INT, date_changed DATETIME,
  PRIMARY KEY (order_type_id), UNIQUE KEY uq_order_type_name (name), UNIQUE KEY uq_order_type_uuid (uuid),
  KEY order_type_changed_by (changed_by), KEY order_type_parent_order_type (parent),
  KEY order_type_retired_status (retired), KEY type_created_by (creator),
  KEY user_who_retired_order_type (retired_by),
  CONSTRAINT order_type_changed_by FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT order_type_parent_order_type FOREIGN KEY (parent) REFERENCES order_type (order_type_id),
  CONSTRAINT type_created_by FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT user_who_retired_order_type FOREIGN KEY (retired_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE care_setting (
  care_setting_id INT NOT NULL AUTO_INCREMENT, name VARCHAR(255) NOT NULL, description VARCHAR(255),
  care_setting_type VARCHAR(50) NOT NULL, creator INT NOT NULL, date_created DATETIME NOT NULL,
  retired TINYINT(1) NOT NULL DEFAULT 0, retired_by INT, date_retired DATETIME, retire_reason VARCHAR(255),
  changed_by INT, date_changed DATETIME, uuid CHAR(38) NOT NULL,
  PRIMARY KEY (care_setting_id), UNIQUE KEY uuid (uuid), UNIQUE KEY name (name),
  KEY care_setting_creator (creator), KEY care_setting_retired_by (retired_by),
  KEY care_setting_changed_by (changed_by),
  CONSTRAINT care_setting_changed_by FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT care_setting_creator FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT care_setting_retired_by FOREIGN KEY (retired_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE orders (
  order_id INT NOT NULL AUTO_INCREMENT, order_type_id INT NOT NULL DEFAULT 0,
  concept_id INT NOT NULL DEFAULT 0, orderer INT NOT NULL, encounter_id INT NOT NULL, instructions TEXT,
  date_activated DATETIME, auto_expire_date DATETIME, date_stopped DATETIME, order_reason INT,
  order_reason_non_coded VARCHAR(255), creator INT NOT NULL DEFAULT 0, date_created DATETIME NOT NULL,
  voided TINYINT(1) NOT NULL DEFAULT 0, voided_by INT, date_voided DATETIME, void_reason VARCHAR(255),
  patient_id INT NOT NULL, accession_number VARCHAR(255), uuid CHAR(38) NOT NULL,
  urgency VARCHAR(50) NOT NULL DEFAULT 'ROUTINE', order_number VARCHAR(50) NOT NULL, previous_order_id INT,
  order_action VARCHAR(50) NOT NULL, comment_to_fulfiller VARCHAR(1024), care_setting INT NOT NULL,
  scheduled_date DATETIME, order_group_id INT, sort_weight DOUBLE, fulfiller_comment VARCHAR(1024),
  fulfiller_status VARCHAR(50), form_namespace_and_path VARCHAR(255),
  PRIMARY KEY (order_id), UNIQUE KEY uq_orders_uuid (uuid), KEY discontinued_because (order_reason),
  KEY fk_orderer_provider (orderer), KEY order_creator (creator), KEY order_for_patient (patient_id),
  KEY orders_accession_number (accession_number), KEY orders_care_setting (care_setting),
  KEY orders_in_encounter (encounter_id), KEY orders_order_group_id_fk (order_group_id),
  KEY orders_order_number (order_number), KEY previous_order_id_order_id (previous_order_id),
  KEY type_of_order (order_type_id), KEY user_who_voided_order (voided_by),
  CONSTRAINT discontinued_because FOREIGN KEY (order_reason) REFERENCES concept (concept_id),
  CONSTRAINT fk_orderer_provider FOREIGN KEY (orderer) REFERENCES provider (provider_id),
  CONSTRAINT order_creator FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT order_for_patient FOREIGN KEY (patient_id) REFERENCES patient (patient_id) ON UPDATE CASCADE,
  CONSTRAINT orders_care_setting FOREIGN KEY (care_setting) REFERENCES care_setting (care_setting_id),
  CONSTRAINT orders_in_encounter FOREIGN KEY (encounter_id) REFERENCES encounter (encounter_id),
  CONSTRAINT previous_order_id_order_id FOREIGN KEY (previous_order_id) REFERENCES orders (order_id),
  CONSTRAINT type_of_order FOREIGN KEY (order_type_id) REFERENCES order_type (order_type_id),
  CONSTRAINT user_who_voided_order FOREIGN KEY (voided_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE drug_order (
  order_id INT NOT NULL DEFAULT 0, drug_inventory_id INT, dose DOUBLE, as_needed TINYINT(1) NULL DEFAULT 0,
  dosing_type VARCHAR(255), quantity DOUBLE, as_needed_condition VARCHAR(255), num_refills INT,
  dosing_instructions TEXT, duration INT, duration_units INT, quantity_units INT, route INT,
  dose_units INT, frequency INT, brand_name VARCHAR(255),
  dispense_as_written TINYINT(1) NOT NULL DEFAULT 0, drug_non_coded VARCHAR(255),
  PRIMARY KEY (order_id), KEY drug_order_dose_units (dose_units),
  KEY drug_order_duration_units_fk (duration_units), KEY drug_order_frequency_fk (frequency),
  KEY drug_order_quantity_units (quantity_units), KEY drug_order_route_fk (route),
  KEY inventory_item (drug_inventory_id),
  CONSTRAINT drug_order_dose_units FOREIGN KEY (dose_units) REFERENCES concept (concept_id),
  CONSTRAINT drug_order_duration_units_fk FOREIGN KEY (duration_units) REFERENCES concept (concept_id),
  CONSTRAINT drug_order_quantity_units FOREIGN KEY (quantity_units) REFERENCES concept (concept_id),
  CONSTRAINT drug_order_route_fk FOREIGN KEY (route) REFERENCES concept (concept_id),
  CONSTRAINT extends_order FOREIGN KEY (order_id) REFERENCES orders (order_id),
  CONSTRAINT inventory_item FOREIGN KEY (drug_inventory_id) REFERENCES drug (drug_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE obs (
  obs_id INT NOT NULL AUTO_INCREMENT, person_id INT NOT NULL, concept_id INT NOT NULL DEFAULT 0,
  encounter_id INT, order_id INT, obs_datetime DATETIME NOT NULL, location_id INT, obs_group_id INT,
  accession_number VARCHAR(255), value_group_id INT, value_coded INT, value_coded_name_id INT,
  value_drug INT, value_datetime DATETIME, value_numeric DOUBLE, value_modifier VARCHAR(2),
  value_text TEXT, value_complex VARCHAR(1000), comments VARCHAR(255), creator INT NOT NULL DEFAULT 0,
  date_created DATETIME NOT NULL, voided TINYINT(1) NOT NULL DEFAULT 0, voided_by INT,
  date_voided DATETIME, void_reason VARCHAR(255), uuid CHAR(38) NOT NULL, previous_version INT,
  form_namespace_and_path VARCHAR(255), status VARCHAR(16) NOT NULL DEFAULT 'FINAL',
  interpretation VARCHAR(32),
  PRIMARY KEY (obs_id), UNIQUE KEY uq_obs_uuid (uuid), KEY answer_concept (value_coded),
  KEY answer_concept_drug (value_drug), KEY encounter_observations (encounter_id),
  KEY obs_concept (concept_id), KEY obs_datetime_idx (obs_datetime), KEY obs_enterer (creator),
  KEY obs_grouping_id (obs_group_id), KEY obs_location (location_id),
  KEY obs_name_of_coded_value (value_coded_name_id), KEY obs_order (order_id), KEY person_obs (person_id),
  KEY previous_version (previous_version), KEY user_who_voided_obs (voided_by),
  CONSTRAINT answer_concept FOREIGN KEY (value_coded) REFERENCES concept (concept_id),
  CONSTRAINT answer_concept_drug FOREIGN KEY (value_drug) REFERENCES drug (drug_id),
  CONSTRAINT encounter_observations FOREIGN KEY (encounter_id) REFERENCES encounter (encounter_id),
  CONSTRAINT obs_concept FOREIGN KEY (concept_id) REFERENCES concept (concept_id),
  CONSTRAINT obs_enterer FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT obs_grouping_id FOREIGN KEY (obs_group_id) REFERENCES obs (obs_id),
  CONSTRAINT obs_location FOREIGN KEY (location_id) REFERENCES location (location_id),
  CONSTRAINT obs_name_of_coded_value FOREIGN KEY (value_coded_name_id) REFERENCES concept_name (concept_name_id),
  CONSTRAINT obs_order FOREIGN KEY (order_id) REFERENCES orders (order_id),
  CONSTRAINT person_obs FOREIGN KEY (person_id) REFERENCES person (person_id) ON UPDATE CASCADE,
  CONSTRAINT previous_version FOREIGN KEY (previous_version) REFERENCES obs (obs_id),
  CONSTRAINT user_who_voided_obs FOREIGN KEY (voided_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE obs_reference_range (
  obs_reference_range_id INT NOT NULL AUTO_INCREMENT, obs_id INT NOT NULL, hi_absolute DOUBLE,
  hi_critical DOUBLE, hi_normal DOUBLE, low_absolute DOUBLE, low_critical DOUBLE, low_normal DOUBLE,
  uuid CHAR(38),
  PRIMARY KEY (obs_reference_range_id), UNIQUE KEY uq_obs_reference_range_obs_id (obs_id),
  UNIQUE KEY uq_obs_reference_range_uuid (uuid),
  CONSTRAINT obs_reference_range_obs_id_fk FOREIGN KEY (obs_id) REFERENCES obs (obs_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE conditions (
  condition_id INT NOT NULL AUTO_INCREMENT, additional_detail VARCHAR(255), previous_version INT,
  condition_coded INT, condition_non_coded VARCHAR(255), condition_coded_name INT,
  clinical_status VARCHAR(50) NOT NULL, verification_status VARCHAR(50), onset_date DATETIME,
  date_created DATETIME NOT NULL, voided TINYINT(1) NOT NULL DEFAULT 0, date_voided DATETIME,
  void_reason VARCHAR(255), uuid VARCHAR(38), creator INT NOT NULL, voided_by INT, changed_by INT,
  patient_id INT NOT NULL, end_date DATETIME, date_changed DATETIME, encounter_id INT,
  form_namespace_and_path VARCHAR(255),
  PRIMARY KEY (condition_id), UNIQUE KEY uq_conditions_uuid (uuid),
  KEY condition_changed_by_fk (changed_by), KEY condition_condition_coded_fk (condition_coded),
  KEY condition_condition_coded_name_fk (condition_coded_name), KEY condition_creator_fk (creator),
  KEY condition_patient_fk (patient_id), KEY condition_previous_version_fk (previous_version),
  KEY condition_voided_by_fk (voided_by), KEY conditions_encounter_id_fk (encounter_id),
  CONSTRAINT condition_changed_by_fk FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT condition_condition_coded_fk FOREIGN KEY (condition_coded) REFERENCES concept (concept_id),
  CONSTRAINT condition_condition_coded_name_fk FOREIGN KEY (condition_coded_name) REFERENCES concept_name (concept_name_id),
  CONSTRAINT condition_creator_fk FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT condition_patient_fk FOREIGN KEY (patient_id) REFERENCES patient (patient_id),
  CONSTRAINT condition_previous_version_fk FOREIGN KEY (previous_version) REFERENCES conditions (condition_id),
  CONSTRAINT condition_voided_by_fk FOREIGN KEY (voided_by) REFERENCES users (user_id),
  CONSTRAINT conditions_encounter_id_fk FOREIGN KEY (encounter_id) REFERENCES encounter (encounter_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE encounter_diagnosis (
  diagnosis_id INT NOT NULL AUTO_INCREMENT, diagnosis_coded INT, diagnosis_non_coded VARCHAR(255),
  diagnosis_coded_name INT, encounter_id INT NOT NULL, patient_id INT NOT NULL, condition_id INT,
  certainty VARCHAR(255) NOT NULL, dx_rank INT NOT NULL, uuid CHAR(38) NOT NULL, creator INT NOT NULL,
  date_created DATETIME NOT NULL, changed_by INT, date_changed DATETIME,
  voided TINYINT(1) NOT NULL DEFAULT 0, voided_by INT, date_voided DATETIME, void_reason VARCHAR(255),
  form_namespace_and_path VARCHAR(255),
  PRIMARY KEY (diagnosis_id), UNIQUE KEY uq_encounter_diagnosis_uuid (uuid),
  KEY encounter_diagnosis_changed_by_fk (changed_by), KEY encounter_diagnosis_coded_fk (diagnosis_coded),
  KEY encounter_diagnosis_coded_name_fk (diagnosis_coded_name),
  KEY encounter_diagnosis_condition_id_fk (condition_id), KEY encounter_diagnosis_creator_fk (creator),
  KEY encounter_diagnosis_encounter_id_fk (encounter_id), KEY encounter_diagnosis_patient_fk (patient_id),
  KEY encounter_diagnosis_voided_by_fk (voided_by),
  CONSTRAINT encounter_diagnosis_changed_by_fk FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT encounter_diagnosis_coded_fk FOREIGN KEY (diagnosis_coded) REFERENCES concept (concept_id),
  CONSTRAINT encounter_diagnosis_coded_name_fk FOREIGN KEY (diagnosis_coded_name) REFERENCES concept_name (concept_name_id),
  CONSTRAINT encounter_diagnosis_condition_id_fk FOREIGN KEY (condition_id) REFERENCES conditions (condition_id),
  CONSTRAINT encounter_diagnosis_creator_fk FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT encounter_diagnosis_encounter_id_fk FOREIGN KEY (encounter_id) REFERENCES encounter (encounter_id),
  CONSTRAINT encounter_diagnosis_patient_fk FOREIGN KEY (patient_id) REFERENCES patient (patient_id),
  CONSTRAINT encounter_diagnosis_voided_by_fk FOREIGN KEY (voided_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE allergy (
  allergy_id INT NOT NULL AUTO_INCREMENT, patient_id INT NOT NULL, severity_concept_id INT,
  coded_allergen INT NOT NULL, non_coded_allergen VARCHAR(255), allergen_type VARCHAR(50) NOT NULL,
  comments VARCHAR(1024), creator INT NOT NULL, date_created DATETIME NOT NULL, changed_by INT,
  date_changed DATETIME, voided TINYINT(1) NOT NULL DEFAULT 1, voided_by INT, date_voided DATETIME,
  void_reason VARCHAR(255), uuid CHAR(38), form_namespace_and_path VARCHAR(255), encounter_id INT,
  PRIMARY KEY (allergy_id), KEY allergy_changed_by_fk (changed_by),
  KEY allergy_coded_allergen_fk (coded_allergen), KEY allergy_creator_fk (creator),
  KEY allergy_encounter_id_fk (encounter_id), KEY allergy_patient_id_fk (patient_id),
  KEY allergy_severity_concept_id_fk (severity_concept_id), KEY allergy_voided_by_fk (voided_by),
  CONSTRAINT allergy_changed_by_fk FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT allergy_coded_allergen_fk FOREIGN KEY (coded_allergen) REFERENCES concept (concept_id),
  CONSTRAINT allergy_creator_fk FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT allergy_patient_id_fk FOREIGN KEY (patient_id) REFERENCES patient (patient_id),
  CONSTRAINT allergy_severity_concept_id_fk FOREIGN KEY (severity_concept_id) REFERENCES concept (concept_id),
  CONSTRAINT allergy_voided_by_fk FOREIGN KEY (voided_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE allergy_reaction (
  allergy_reaction_id INT NOT NULL AUTO_INCREMENT, allergy_id INT NOT NULL,
  reaction_concept_id INT NOT NULL, reaction_non_coded VARCHAR(255), uuid CHAR(38),
  PRIMARY KEY (allergy_reaction_id), KEY allergy_reaction_allergy_id_fk (allergy_id),
  KEY allergy_reaction_reaction_concept_id_fk (reaction_concept_id),
  CONSTRAINT allergy_reaction_allergy_id_fk FOREIGN KEY (allergy_id) REFERENCES allergy (allergy_id),
  CONSTRAINT allergy_reaction_reaction_concept_id_fk FOREIGN KEY (reaction_concept_id) REFERENCES concept (concept_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE person_merge_log (
  person_merge_log_id INT NOT NULL AUTO_INCREMENT, winner_person_id INT NOT NULL,
  loser_person_id INT NOT NULL, creator INT NOT NULL, date_created DATETIME NOT NULL,
  merged_data TEXT NOT NULL, uuid CHAR(38) NOT NULL, changed_by INT, date_changed DATETIME,
  voided TINYINT(1) NOT NULL DEFAULT 0, voided_by INT, date_voided DATETIME, void_reason VARCHAR(255),
  PRIMARY KEY (person_merge_log_id), UNIQUE KEY uq_person_merge_log_uuid (uuid),
  KEY person_merge_log_changed_by_fk (changed_by), KEY person_merge_log_creator (creator),
  KEY person_merge_log_loser (loser_person_id), KEY person_merge_log_voided_by_fk (voided_by),
  KEY person_merge_log_winner (winner_person_id),
  CONSTRAINT person_merge_log_changed_by_fk FOREIGN KEY (changed_by) REFERENCES users (user_id),
  CONSTRAINT person_merge_log_creator FOREIGN KEY (creator) REFERENCES users (user_id),
  CONSTRAINT person_merge_log_loser FOREIGN KEY (loser_person_id) REFERENCES person (person_id),
  CONSTRAINT person_merge_log_voided_by_fk FOREIGN KEY (voided_by) REFERENCES users (user_id),
  CONSTRAINT person_merge_log_winner FOREIGN KEY (winner_person_id) REFERENCES person (person_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;

CREATE TABLE global_property (
  property VARCHAR(255) NOT NULL DEFAULT '', property_value TEXT, description TEXT, uuid CHAR(38) NOT NULL,
  datatype VARCHAR(255), datatype_config TEXT, preferred_handler VARCHAR(255), handler_config TEXT,
  date_changed DATETIME, changed_by INT,
  PRIMARY KEY (property), UNIQUE KEY global_property_uuid_index (uuid),
  KEY global_property_property_index (property), KEY global_property_changed_by (changed_by),
  CONSTRAINT global_property_changed_by FOREIGN KEY (changed_by) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
