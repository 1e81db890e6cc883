"""The mutants: each breaks a named promise in one place, and names the test of behaviour that must
see it.

`old` stands exactly once in `file`. Where code changes, its mutant must follow: one that doesn't
apply fails the run.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    promise: str
    file: str
    old: str
    new: str
    test: str


UNIT, INTEGRATION = "tests/unit/", "tests/integration/"
SINK = f"{INTEGRATION}test_mongo_sink.py::"

MUTANTS = (
    Mutant(
        "a position is saved only when everything before it is acknowledged",
        "cdc/checkpoint.py",
        "while self._open and self._open[0][0] <= number:",
        "while self._open:",
        f"{UNIT}test_positions.py::test_a_position_waits_for_everything_before_it",
    ),
    Mutant(
        "the furthest position holds, not the last one written",
        "cdc/positions.py",
        "return max(reversed([*records]), key=lambda saved: saved.rank, default=None)",
        "return next(reversed([*records]), None)",
        f"{UNIT}test_positions.py::test_the_furthest_holds_whatever_the_order",
    ),
    Mutant(
        "a file's number orders, not its name",
        "passport/version.py",
        "        return self.number, self.pos",
        "        return (len(self.file) and self.pos, self.pos)",
        f"{UNIT}test_positions.py::test_the_furthest_holds_whatever_the_order",
    ),
    Mutant(
        "an epoch is higher than every one before",
        "passport/version.py",
        "return max(previous + 1, int(birth_s))",
        "return max(previous, 1)",
        f"{INTEGRATION}test_positions.py::test_from_polling_to_the_binlog_is_a_new_epoch",
    ),
    Mutant(
        "a lost positions topic can't restart the epoch low",
        "cdc/resume.py",
        "else positions.published_epoch(hospital.partition)",
        "else 0",
        f"{UNIT}test_simulation.py::test_every_history_ends_well",
    ),
    Mutant(
        "a topic that lost what it acknowledged is a gap",
        "cdc/publisher.py",
        "        if 0 <= offset < self.end:",
        "        if not offset > -2:",
        f"{INTEGRATION}test_positions.py::test_a_topic_that_ends_before_what_it_acknowledged_is_a_gap",
    ),
    Mutant(
        "the GTIDs saved in the next file are whole",
        "cdc/session.py",
        "        self._gtid_set = self._gtid_set if gtid_set is None else gtid_set  # the",
        "        if at.file == self._stream.position.file and gtid_set:\n            self._gtid_set = gtid_set  # the",
        f"{INTEGRATION}test_reader.py::test_the_gtids_saved_in_the_next_file_are_whole",
    ),
    Mutant(
        "a hospital keeps its partition",
        "cdc/positions.py",
        "if saved.hospital != hospital and saved.partition == partition:",
        "if False and saved.partition == partition:",
        f"{INTEGRATION}test_positions.py::test_a_partition_is_one_hospitals_for_good",
    ),
    Mutant(
        "an unknown event of the binlog stops",
        "cdc/binlog/decoder.py",
        "        if flags & _IGNORABLE:",
        "        if flags is not None:",
        f"{UNIT}test_binlog_events.py::test_an_unknown_event_stops_unless_it_says_that_it_may_be_ignored",
    ),
    Mutant(
        "a damaged event is never decoded",
        "cdc/binlog/decoder.py",
        "if tail and crc(event) != _INTACT:",
        "if len(event) < 0:",
        f"{UNIT}test_binlog_events.py::test_any_damaged_byte_is_noticed",
    ),
    Mutant(
        "a position that the server has purged is a gap",
        "cdc/resume.py",
        "    if size is None:",
        "    if size is None and not saved.epoch:",
        f"{INTEGRATION}test_reader.py::test_row_49_purged_while_it_is_down",
    ),
    Mutant(
        "another server at the same address is another",
        "cdc/resume.py",
        "    if saved.server != identity:",
        "    if not identity:",
        f"{INTEGRATION}test_positions.py::test_a_position_is_one_servers",
    ),
    Mutant(
        "one reader a hospital",
        "cdc/lease.py",
        'if self._asked("SELECT GET_LOCK(%s, 1)", self._name)[0] == 1:',
        'if self._asked("SELECT GET_LOCK(%s, 1)", self._name):',
        f"{INTEGRATION}test_reader.py::test_a_second_reader_waits_and_takes_over",
    ),
    Mutant(
        "a crashed server's last file is read again",
        "cdc/session.py",
        "        if not rotated.clean:",
        "        if rotated.clean is None:",
        f"{INTEGRATION}test_snapshot.py::test_a_crashed_server_is_read_again_and_an_orderly_restart_is_not",
    ),
    Mutant(
        "a chunk is done when it is acknowledged",
        "cdc/snapshot.py",
        "if chunk is None or self._publisher.acked() < self._last_record:",
        "if chunk is None or self._publisher.acked() < 0:",
        f"{UNIT}test_simulation.py::test_a_snapshots_chunk_is_done_when_it_is_acknowledged",
    ),
    Mutant(
        "a row's newest version wins",
        "destinations/mongo/observations.py",
        'elif head.version > document["version"]:',
        "elif not head.version:",
        f"{SINK}test_a_voided_row_is_hidden_whatever_the_order",
    ),
    Mutant(
        "a row that is newer meanwhile is not written over",
        "destinations/mongo/observations.py",
        'seen = {"_id": key, "version": head.version, "digest": head.digest}',
        'seen = {"_id": key}',
        f"{SINK}test_a_row_that_is_newer_meanwhile_stays",
    ),
    Mutant(
        "a person who newly matches is read whole",
        "destinations/mongo/people.py",
        '    return "move" if before is not None and pending in (None, "move") else "read"',
        '    return "move"',
        f"{SINK}test_a_corrected_identifier_releases_too",
    ),
    Mutant(
        "an obs that waits is read once",
        "consumers/reenrich.py",
        "            found.difference_update(other.ids or ())",
        "            found.difference_update(other.ids[:0] if other.ids else ())",
        f"{INTEGRATION}test_reread.py::test_an_obs_that_waits_is_read_once_however_often_the_name_changes",
    ),
    Mutant(
        "what is left of a large re-read goes on after a restart",
        "consumers/worker.py",
        "            partition.rereads.restore(progress.rereads)",
        "            partition.rereads.restore([])",
        f"{INTEGRATION}test_worker.py::test_a_large_reread_goes_on_where_its_consumer_was_killed",
    ),
    Mutant(
        "nothing is written beside undecided records of the former sync",
        "destinations/mongo/sink.py",
        "            cutover.refuse(self._db)\n",
        "",
        f"{SINK}test_it_does_not_begin_beside_records_of_the_former_sync",
    ),
    Mutant(
        "who is in nobody's chunk is gone",
        "consumers/apply.py",
        "self._count(partition, self._sink.retain(scope, event.keys, event.source.version))",
        "self._count(partition, Outcome())",
        f"{INTEGRATION}test_apply.py::test_a_row_that_a_chunk_has_not_is_gone",
    ),
    Mutant(
        "a purged row leaves a tombstone that keeps older events out",
        "destinations/mongo/sink.py",
        'tombstones = {key: mirror.tombstone(one, version or one["version"]) for key, one in known.items()}',
        "tombstones = {}",
        f"{SINK}test_a_chunk_removes_what_it_has_not",
    ),
    Mutant(
        "events at or below a person's floor are stale",
        "destinations/mongo/sink.py",
        "            elif observation.version < link.floor:",
        "            elif not observation.version:",
        f"{SINK}test_a_person_read_whole_is_all_there_is",
    ),
    Mutant(
        "nothing is stored of who is not matched",
        "destinations/mongo/sink.py",
        "            if link.patient_id is None:\n                outcome.unmatched += 1",
        "            if link.patient_id is None and not link.key:\n                outcome.unmatched += 1",
        f"{SINK}test_nothing_is_stored_of_who_is_not_matched",
    ),
    Mutant(
        "what moves to somebody who is not matched is gone",
        "destinations/mongo/sink.py",
        "documents | self._strays(newest, links), links",
        "documents, links",
        f"{SINK}test_a_row_that_goes_to_an_unmatched_person_is_gone",
    ),
    Mutant(
        "whose link ends is hidden",
        "destinations/mongo/people.py",
        '    if patient is None:\n        return "remove"',
        "    if patient is None:\n        return None",
        f"{SINK}test_a_link_ends",
    ),
    Mutant(
        "an older knowledge of a person does not win",
        "destinations/mongo/people.py",
        'if person.version < known["version"] or all(',
        "if all(",
        f"{SINK}test_an_older_knowledge_of_a_person_does_not_win",
    ),
    Mutant(
        "a notice has its obs read again",
        "consumers/apply.py",
        "                partition.rereads.notice(event, item.record.offset, written)",
        "                continue",
        f"{INTEGRATION}test_apply.py::test_a_new_name_reaches_old_rows",
    ),
    Mutant(
        "no offset passes work that is not finished",
        "consumers/partition.py",
        "return self.next if held is None else min(held, self.next)",
        "return self.next",
        f"{UNIT}test_partition.py::test_the_offset_stays_before_unfinished_work",
    ),
    Mutant(
        "progress is stored after the write",
        "consumers/worker.py",
        "                self._received(partition, items)\n",
        "                partition.next = items[-1].record.offset + 1\n"
        "                self._store(partition, now=True)\n",
        f"{INTEGRATION}test_apply.py::test_a_write_that_fails_comes_again_after_a_restart",
    ),
    Mutant(
        "a failed write is tried again",
        "consumers/worker.py",
        "            self._pause(partition, error)\n",
        "            partition.next += len(items)\n",
        f"{INTEGRATION}test_apply.py::test_a_write_that_fails_comes_again",
    ),
    Mutant(
        "a restored destination catches up",
        "consumers/worker.py",
        "start = progress.offset if committed is None else min(progress.offset, committed)",
        "start = progress.offset if committed is None else committed",
        f"{INTEGRATION}test_worker.py::test_the_lower_of_both_offsets_is_where_it_starts",
    ),
    Mutant(
        "poison is parked",
        "consumers/apply.py",
        "            if item.reject is not None:\n",
        "            if item.reject is not None and not item.record:\n",
        f"{INTEGRATION}test_dead_letters.py::test_what_cannot_be_read_stays",
    ),
    Mutant(
        "another hospital's event is refused",
        "consumers/partition.py",
        "        if event.source.hospital != hospital_id:",
        "        if not event.source.hospital:",
        f"{UNIT}test_partition.py::test_what_cannot_be_carried",
    ),
    Mutant(
        "an envelope of another version is refused",
        "passport/event.py",
        "    v: Literal[1]\n",
        "    v: int\n",
        f"{INTEGRATION}test_dead_letters.py::test_what_cannot_be_read_stays",
    ),
    Mutant(
        "a retried letter is read again at its hospital",
        "consumers/dead_letters.py",
        "            row = found[0] if found else event.row",
        "            row = event.row",
        f"{INTEGRATION}test_dead_letters.py::test_a_row_is_read_again_at_its_hospital",
    ),
    Mutant(
        "a doctor's edit is not overwritten",
        "destinations/mongo/record_update.py",
        "return _edited_update(old, new) if edited(old) else _update(old, new)",
        "return _update(old, new)",
        f"{SINK}test_row_43_a_doctors_edit_stays_and_the_hospitals_values_wait_beside_it",
    ),
    Mutant(
        "a row with a live successor is not shown",
        "destinations/mongo/projection/records.py",
        'replaced = {row["row"].get("previous_version") for row in standing.values()}',
        "replaced: set[int] = set()",
        f"{UNIT}test_projection.py::test_a_row_with_a_live_successor_is_not_shown",
    ),
    Mutant(
        "two rows voided at once are seen by polling",
        "openmrs/row_hash.py",
        "SHA2({text}, 256)",
        "LPAD(CHAR_LENGTH({text}), 16, '0')",
        f"{INTEGRATION}test_polling.py::test_rows_voided_at_once_do_not_cancel_out",
    ),
    Mutant(
        "no two polling runs share a number",
        "cdc/polling/polling.py",
        "            number = self._saved.run + 1\n            self._save(",
        "            number = self._saved.run + 1\n            replace(",
        f"{INTEGRATION}test_polling.py::test_a_run_that_breaks_off_comes_again_with_another_number",
    ),
    Mutant(
        "a document that is refused is told by its place in the whole write",
        "destinations/mongo/client.py",
        "{half + index: why",
        "{index: why",
        f"{INTEGRATION}test_mongo_client.py::test_a_large_write_in_two_halves_tells_of_each_operation_by_its_index",
    ),
    Mutant(
        "what is on its way is no difference",
        "reconcile/compare.py",
        "            if not mark.reached(lambda: self._passport.progress(self._id)):",
        "            if mark is None:",
        f"{INTEGRATION}test_compare.py::test_a_destination_that_is_behind_is_not_judged",
    ),
    Mutant(
        "who differs is published",
        "reconcile/compare.py",
        "                backfill.persons(self._id, self._settings, sorted(same))\n",
        "",
        f"{INTEGRATION}test_compare.py::test_row_50_what_the_binlog_does_not_have_is_repaired",
    ),
    Mutant(
        "nothing compared is not equal",
        "reconcile/report.py",
        "self.equal = self.rows > 0 and not (",
        "self.equal = not (",
        f"{UNIT}test_reconcile.py::test_nothing_compared_is_not_equal",
    ),
    Mutant(
        "a tampered record is found",
        "reconcile/verify.py",
        "        found.merge(differing.records(self.records.get(person_id, {}), self.shown.get(person_id, {})))\n",
        "",
        f"{INTEGRATION}test_verify.py::test_one_wrong_document_is_found_and_nothing_else",
    ),
    Mutant(
        "a silent stream's hospital is polled",
        "cdc/polling/watchdog.py",
        "        return now - self._moved >= self._settings.cdc.silence_s",
        "        return now - self._moved >= 1e9",
        f"{INTEGRATION}test_watchdog.py::test_binlog_off_and_on_again",
    ),
    Mutant(
        "replay moves no progress of the group's",
        "consumers/replay.py",
        "        self._apply()\n        while self._partition",
        '        self._apply()\n        self._applier._sink.record(sinks.Progress("kigali", 1, "", 1))\n'
        "        while self._partition",
        f"{INTEGRATION}test_replay.py::test_replaying_everything_changes_nothing_and_moves_no_offset",
    ),
    Mutant(
        "who once bore an erased id by mistake is somebody else",
        "destinations/mongo/erasure.py",
        "if who.national_id in (None, self._id))",
        "if who.hospital)",
        "tests/e2e/test_erasure.py::test_a_person_is_erased",
    ),
    Mutant(
        "rows of a writer that an erasure has overtaken go",
        "destinations/mongo/sink.py",
        "        for key in refreshed.unlinked:\n",
        "        for key in self._people.patients(refreshed.unlinked):\n",
        f"{SINK}test_a_writer_that_is_overtaken_by_an_erasure_leaves_nothing",
    ),
)
