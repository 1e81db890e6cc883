"""The mutants: each breaks a named promise, and names the test of behaviour that must see it.

Where the product's code changes, its mutant follows. A mutant that finds no place fails the run.
"""

from tests.mutants.edit import Mutant

UNIT = "tests/unit/"
INTEGRATION = "tests/integration/"
SINK = f"{INTEGRATION}test_mongo_sink.py::"
FENCE = f"{INTEGRATION}test_mongo_fence.py::"

MUTANTS = (
    Mutant(
        "a position is saved only when everything before it is acknowledged",
        "cdc/checkpoint.py",
        function="Checkpoint.acked",
        old="self._open and self._open[0][0] <= number",
        new="self._open",
        test=f"{UNIT}test_positions.py::test_a_position_waits_for_everything_before_it",
    ),
    Mutant(
        "the furthest position holds, not the last one written",
        "cdc/positions.py",
        function="HospitalRecords._add_position",
        old="self._furthest is None or saved.rank >= self._furthest.rank",
        new="saved.rank",
        test=f"{UNIT}test_positions.py::test_the_furthest_holds_whatever_the_order",
    ),
    Mutant(
        "a file's number orders, not its name",
        "passport/version.py",
        function="Position.order",
        old="self.number, self.pos",
        new="(len(self.file) and self.pos, self.pos)",
        test=f"{UNIT}test_positions.py::test_the_furthest_holds_whatever_the_order",
    ),
    Mutant(
        "an epoch is higher than every one before",
        "passport/version.py",
        function="next_epoch",
        old="max(previous + 1, int(birth_s))",
        new="max(previous, 1)",
        test=f"{INTEGRATION}test_positions.py::test_from_polling_to_the_binlog_is_a_new_epoch",
    ),
    Mutant(
        "a server that keeps changes out of its binlog is refused",
        "cdc/resume.py",
        function="_refuse_hidden_changes",
        old="obstacle is None",
        new="True",
        test=(
            f"{INTEGRATION}test_hidden_changes.py::test_a6_a_filter_of_the_binlog_stops_the_reader"
        ),
    ),
    Mutant(
        "a binlog that is purged by size is not kept for longer than the size lasts",
        "cdc/retention.py",
        function="left_s",
        old="kept.size - size",
        new="kept.size",
        test=f"{UNIT}test_retention.py::test_a18_what_is_left_of_a_size",
    ),
    Mutant(
        "a lost positions topic can't restart the epoch low",
        "cdc/resume.py",
        function="find_start",
        old="max(saved.epoch if saved else 0, published_epoch)",
        new="saved.epoch if saved else 0",
        test=f"{UNIT}test_simulation.py::test_every_history_ends_well",
    ),
    Mutant(
        "a topic that lost what it acknowledged is a gap",
        "cdc/publisher.py",
        function="Publisher._take_offset",
        old="0 <= offset < self.end_offset",
        new="not offset > -2",
        test=(
            f"{INTEGRATION}test_positions.py::"
            "test_a_topic_that_ends_before_what_it_acknowledged_is_a_gap"
        ),
    ),
    Mutant(
        "the GTIDs saved in the next file are whole",
        "cdc/position_writer.py",
        function="PositionWriter.mark",
        old="if gtid_set is not None:\n    self._gtid_set = gtid_set",
        new="if format_ts and gtid_set:\n    self._gtid_set = gtid_set",
        test=f"{INTEGRATION}test_reader.py::test_the_gtids_saved_in_the_next_file_are_whole",
    ),
    Mutant(
        "DDL is noticed behind SET STATEMENT",
        "cdc/binlog/statements.py",
        function="Statements._set",
        old="self._classify(reader, default)",
        new='Classified("other")',
        test=f"{UNIT}test_statements.py::test_statement",
    ),
    Mutant(
        "a statement that is not known and names a watched table is its DDL",
        "cdc/binlog/statements.py",
        function="Statements._not_known",
        old="self._watched(reader.rest(), default)",
        new="()",
        test=f"{UNIT}test_statements.py::test_statement",
    ),
    Mutant(
        "an ALTER of a carried column begins a snapshot",
        "cdc/column_lists.py",
        function="_changes_values",
        old="change.names & {*_carried_names(statement.table)}",
        new="False",
        test=f"{INTEGRATION}test_ddl.py::test_row_51_between_chunks",
    ),
    Mutant(
        "rows behind an ALTER are read with the columns that it says",
        "cdc/column_lists.py",
        function="ColumnLists._altered",
        old='statement.kind != "alter"',
        new="True",
        test=f"{INTEGRATION}test_ddl.py::test_a16_ddl_that_keeps_values_begins_no_snapshot",
    ),
    Mutant(
        "a hospital keeps its partition",
        "cdc/positions.py",
        function="_check_partition",
        old="partition in records.partitions",
        new="False",
        test=f"{INTEGRATION}test_positions.py::test_a_partition_is_one_hospitals_for_good",
    ),
    Mutant(
        "each epoch and run has a key of its own",
        "cdc/positions.py",
        function="HospitalRecords.write",
        old="_Key(saved.hospital, _POSITION, saved.epoch, str(saved.run))",
        new="_Key(saved.hospital, _POSITION, 0, str(saved.run))",
        test=f"{UNIT}test_positions.py::"
        "test_a2_compaction_and_late_writers_take_no_acknowledged_epoch_or_run_away",
    ),
    Mutant(
        "the lease is kept while the positions are read",
        "cdc/positions.py",
        function="Positions._read",
        old="keep()",
        new="True",
        test=f"{INTEGRATION}test_small_positions.py::"
        "test_a2_the_lease_is_kept_while_the_topic_is_read",
    ),
    Mutant(
        "an unknown event of the binlog stops",
        "cdc/binlog/decoder.py",
        function="EventDecoder._unknown",
        old="flags & _IGNORABLE",
        new="flags is not None",
        test=(
            f"{UNIT}test_binlog_events.py::"
            "test_an_unknown_event_stops_unless_it_says_that_it_may_be_ignored"
        ),
    ),
    Mutant(
        "a damaged event is never decoded",
        "cdc/binlog/decoder.py",
        function="EventDecoder.read",
        old="tail and crc(event) != _INTACT",
        new="len(event) < 0",
        test=f"{UNIT}test_binlog_events.py::test_any_damaged_byte_is_noticed",
    ),
    Mutant(
        "a position that the server has purged is a gap",
        "cdc/resume.py",
        function="unusable",
        old="size is None",
        new="size is None and not saved.epoch",
        test=f"{INTEGRATION}test_reader.py::test_row_49_purged_while_it_is_down",
    ),
    Mutant(
        "another server at the same address is another",
        "cdc/resume.py",
        function="unusable",
        old="saved.server != identity",
        new="not identity",
        test=f"{INTEGRATION}test_positions.py::test_a_position_is_one_servers",
    ),
    Mutant(
        "one reader a hospital",
        "cdc/lease.py",
        function="Lease.take",
        old="self._lock_within(1)",
        new="self._lock_within(1) or True",
        test=f"{INTEGRATION}test_reader.py::test_a_second_reader_waits_and_takes_over",
    ),
    Mutant(
        "a crashed server's last file is read again",
        "cdc/session.py",
        function="Session._next_file",
        old="rotated.clean",
        new="rotated.clean is not None",
        test=(
            f"{INTEGRATION}test_snapshot.py::"
            "test_a_crashed_server_is_read_again_and_an_orderly_restart_is_not"
        ),
    ),
    Mutant(
        "a crash is harmless only with durable settings",
        "cdc/durability.py",
        function="is_durable",
        old="variables == DURABLE",
        new="len(variables) == len(DURABLE)",
        test=(f"{INTEGRATION}test_gaps.py::test_a_crash_with_durable_settings_needs_no_snapshot"),
    ),
    Mutant(
        "the rows of an XA transaction are read when it is committed",
        "cdc/binlog/statements.py",
        function="PreparedTransactions.made_visible",
        old="not has_rows",
        new="True",
        test=(
            f"{UNIT}test_binlog_events.py::"
            "test_an_xa_commit_of_rows_or_of_what_was_not_seen_asks_for_a_snapshot"
        ),
    ),
    Mutant(
        "a snapshot of a polled hospital reads what has not changed, too",
        "cdc/polling/walk.py",
        function="Walk._walk_table",
        old="self._is_snapshot or not state.complete",
        new="not state.complete",
        test=(
            f"{INTEGRATION}test_signals.py::"
            "test_a_polled_hospital_is_read_once_more_at_another_budget_or_not_to_its_end"
        ),
    ),
    Mutant(
        "when a table of names became another, everyone is read once more",
        "consumers/reenrich.py",
        function="ReenrichmentQueue.add_key_change",
        old='event.op == "r"',
        new='event.op == "d"',
        test=(
            f"{INTEGRATION}test_worker.py::"
            "test_a_table_of_names_that_became_another_is_looked_up_again_without_a_snapshot"
        ),
    ),
    Mutant(
        "a transaction is skipped, and not those behind it",
        "cdc/binlog/decoder.py",
        function="EventDecoder._end_group",
        old=(
            "self._in_group = self._open = self._xa = self._rows_in_group"
            " = self._is_skipped = False"
        ),
        new="self._in_group = self._open = self._xa = self._rows_in_group = False",
        test=(
            f"{UNIT}test_binlog_events.py::"
            "test_a_skipped_transaction_gives_no_row_whatever_is_wrong_with_it"
        ),
    ),
    Mutant(
        "a transaction is skipped in the epoch in which that was asked for",
        "cdc/signals.py",
        function="Signals.skipped",
        old="signal.epoch == epoch",
        new="signal.epoch",
        test=(f"{UNIT}test_signals.py::test_a_transaction_to_skip_is_named_as_the_reader_meets_it"),
    ),
    Mutant(
        "what is acknowledged of a large transaction is not published again",
        "cdc/session.py",
        function="Session._without_published",
        old="self._transaction.published_row(item)\ncontinue",
        new="pass",
        test=(
            f"{INTEGRATION}test_gaps.py::"
            "test_a11_a_large_transaction_that_stops_the_reader_is_published_once"
        ),
    ),
    Mutant(
        "a compressed transaction ends when its checksum was right",
        "cdc/binlog/large_event.py",
        function="LargeEvent.is_intact",
        old="self._crc == _INTACT",
        new="self._crc is not None",
        test=(
            f"{INTEGRATION}test_compressed.py::"
            "test_a9_a_damaged_compressed_transaction_is_never_committed"
        ),
    ),
    Mutant(
        "a chunk is done when it is acknowledged",
        "cdc/snapshot.py",
        function="SnapshotJob.settle",
        old="self._publisher.acked() < self._last_record",
        new="self._publisher.acked() < 0",
        test=f"{UNIT}test_simulation.py::test_a_snapshots_chunk_is_done_when_it_is_acknowledged",
    ),
    Mutant(
        "a row's newest version wins",
        "destinations/mongo/observations.py",
        function="RowBatch.next_writes",
        old='head.version > document["version"]',
        new="not head.version",
        test=f"{SINK}test_a_voided_row_is_hidden_whatever_the_order",
    ),
    Mutant(
        "a row that is newer meanwhile is not written over",
        "destinations/mongo/observations.py",
        function="RowWrite.operation",
        old=('{"_id": self.key, "version": self.replaced.version, "digest": self.replaced.digest}'),
        new='{"_id": self.key}',
        test=f"{FENCE}test_a_row_that_an_earlier_release_wrote_meanwhile_stays",
    ),
    Mutant(
        "a person who newly matches is read whole",
        "destinations/mongo/people.py",
        function="_pending",
        old='"move" if before is not None and pending in (None, "move") else "read"',
        new='"move"',
        test=f"{SINK}test_a_corrected_identifier_releases_too",
    ),
    Mutant(
        "an obs that waits is read once",
        "consumers/reenrich.py",
        function="ReenrichmentQueue._leave_to_others",
        old="queue.ids",
        new="()",
        test=(
            f"{INTEGRATION}test_reenrich.py::"
            "test_an_obs_that_waits_is_read_once_however_often_the_name_changes"
        ),
    ),
    Mutant(
        "what is left of a large re-read goes on after a restart",
        "consumers/worker.py",
        function="Worker._start",
        old="partition.reenrichment.restore(progress.rereads)",
        new="partition.reenrichment.restore([])",
        test=(
            f"{INTEGRATION}test_worker.py::"
            "test_a_large_re_enrichment_goes_on_where_its_consumer_was_killed"
        ),
    ),
    Mutant(
        "nothing is written beside undecided records of the legacy sync",
        "destinations/mongo/sink.py",
        function="MongoSink.write",
        old="legacy_records.refuse_undecided(self._db)",
        new="pass",
        test=f"{SINK}test_it_does_not_begin_beside_records_of_the_former_sync",
    ),
    Mutant(
        "who is in nobody's chunk is gone",
        "consumers/apply.py",
        function="Applier._retain",
        old="self._sink.retain(scope, event.keys, event.source.version)",
        new="Outcome()",
        test=f"{INTEGRATION}test_apply.py::test_a_row_that_a_chunk_has_not_is_gone",
    ),
    Mutant(
        "a purged row leaves a tombstone that keeps older events out",
        "destinations/mongo/hospital_writer.py",
        function="HospitalWriter.retain_range",
        old="{key: mirror.tombstone(row, version) for key, row in rows.items()}",
        new="{}",
        test=f"{SINK}test_a_chunk_removes_what_it_has_not",
    ),
    Mutant(
        "events at or below a person's floor are stale",
        "destinations/mongo/hospital_writer.py",
        function="HospitalWriter._documents_to_keep",
        old="observation.version < link.floor",
        new="not observation.version",
        test=f"{SINK}test_a_person_read_whole_is_all_there_is",
    ),
    Mutant(
        "nothing is stored of who is not matched",
        "destinations/mongo/hospital_writer.py",
        function="HospitalWriter._documents_to_keep",
        old="link.patient_id is None",
        new="link.patient_id is None and not link.key",
        test=f"{SINK}test_nothing_is_stored_of_who_is_not_matched",
    ),
    Mutant(
        "what moves to somebody who is not matched is gone",
        "destinations/mongo/hospital_writer.py",
        function="HospitalWriter.write",
        old="documents | self._tombstones_of_strays(newest, links)",
        new="documents",
        test=f"{SINK}test_a_row_that_goes_to_an_unmatched_person_is_gone",
    ),
    Mutant(
        "whose link ends is hidden",
        "destinations/mongo/people.py",
        function="_pending",
        old='"remove"',
        new="None",
        test=f"{SINK}test_a_link_ends",
    ),
    Mutant(
        "an older knowledge of a person does not win",
        "destinations/mongo/people.py",
        function="People._change",
        old='person.version < document["version"] or is_equal',
        new="is_equal",
        test=f"{SINK}test_an_older_knowledge_of_a_person_does_not_win",
    ),
    Mutant(
        "a notice has its obs read again",
        "consumers/apply.py",
        function="Applier._run",
        old="partition.reenrichment.add_key_change(event, item.record.offset, written)",
        new="continue",
        test=f"{INTEGRATION}test_apply.py::test_a_new_name_reaches_old_rows",
    ),
    Mutant(
        "no offset passes work that is not finished",
        "consumers/partition.py",
        function="Partition.offset",
        old="min(held_offset, self.next)",
        new="self.next",
        test=f"{UNIT}test_partition.py::test_the_offset_stays_before_unfinished_work",
    ),
    Mutant(
        "progress is stored after the write",
        "consumers/worker.py",
        function="Worker._serve",
        old="self._received(partition, items)",
        new="partition.next = items[-1].record.offset + 1\nself._store(partition, now=True)",
        test=f"{INTEGRATION}test_apply.py::test_a_write_that_fails_comes_again_after_a_restart",
    ),
    Mutant(
        "a failed write is tried again",
        "consumers/worker.py",
        function="Worker._serve",
        old="self._pause(partition, error)",
        new="partition.next += len(items)",
        test=f"{INTEGRATION}test_apply.py::test_a_write_that_fails_comes_again",
    ),
    Mutant(
        "a restored destination catches up",
        "consumers/worker.py",
        function="Worker._first_offset",
        old="min(progress.offset, committed)",
        new="committed",
        test=f"{INTEGRATION}test_worker.py::test_the_lower_of_both_offsets_is_where_it_starts",
    ),
    Mutant(
        "poison is parked",
        "consumers/apply.py",
        function="Applier._run",
        old="self._letters.park(item.record, item.reject.reason, partition.hospital_id)",
        new="continue",
        test=f"{INTEGRATION}test_dead_letters.py::test_what_cannot_be_read_stays",
    ),
    Mutant(
        "another hospital's event is refused",
        "consumers/partition.py",
        function="parse_record",
        old="event.source.hospital != hospital_id",
        new="not event.source.hospital",
        test=f"{UNIT}test_partition.py::test_what_cannot_be_carried",
    ),
    Mutant(
        "an envelope of another version is refused",
        "passport/event.py",
        function="RowEvent",
        old="Literal[1]",
        new="int",
        test=f"{INTEGRATION}test_dead_letters.py::test_what_cannot_be_read_stays",
    ),
    Mutant(
        "a retried letter is read again at its hospital",
        "consumers/dead_letters.py",
        function="_apply_row",
        old="rows[0] if rows else event.row",
        new="event.row",
        test=f"{INTEGRATION}test_dead_letters.py::test_a_row_is_read_again_at_its_hospital",
    ),
    Mutant(
        "a doctor's edit is not overwritten",
        "destinations/mongo/record_update.py",
        function="change",
        old="_edited_update(old, new) if edited(old) else _update(old, new)",
        new="_update(old, new)",
        test=f"{SINK}test_row_43_a_doctors_edit_stays_and_the_hospitals_values_wait_beside_it",
    ),
    Mutant(
        "a row with a live successor is not shown",
        "destinations/mongo/projection/obs.py",
        function="_live",
        old='replaced = {row["row"].get("previous_version") for row in standing.values()}',
        new="replaced: set[int] = set()",
        test=f"{UNIT}test_projection.py::test_a_row_with_a_live_successor_is_not_shown",
    ),
    Mutant(
        "two rows voided at once are seen by polling",
        "openmrs/row_hash.py",
        function="sql",
        old='f"BIT_XOR(CAST(CONV(LEFT(SHA2({row_text}, 256), 16), 16, 10) AS UNSIGNED))"',
        new=(
            'f"BIT_XOR(CAST(CONV(LEFT('
            "LPAD(CHAR_LENGTH({row_text}), 16, '0')"
            ', 16), 16, 10) AS UNSIGNED))"'
        ),
        test=f"{INTEGRATION}test_polling.py::test_rows_voided_at_once_do_not_cancel_out",
    ),
    Mutant(
        "no two polling runs share a number",
        "cdc/polling/poll.py",
        function="Poller._save_begun",
        old="self._number + NUMBERS_AT_ONCE",
        new="self._saved.run",
        test=(
            f"{INTEGRATION}test_polling.py::"
            "test_a_run_that_breaks_off_comes_again_with_another_number"
        ),
    ),
    Mutant(
        "what a run that broke off has published is in doubt",
        "cdc/polling/poll.py",
        function="Poller._publish",
        old="self._state.doubt(differing)",
        new="pass",
        test=(
            f"{INTEGRATION}test_polling.py::"
            "test_a_row_that_came_in_a_run_that_broke_off_and_is_gone_by_the_next_is_told_of"
        ),
    ),
    Mutant(
        "an ALTER does not wait for polling",
        "cdc/polling/scan.py",
        function="Scan.fact_pieces",
        old="self._pace.spend(len(piece.rows) * (FETCHED + HASHED))",
        new=(
            "with self._source.read_at(ANY_POSITION) as read:\n"
            "    next_rows(read, fact, after, 1)\n"
            "    self._pace.spend(len(piece.rows) * (FETCHED + HASHED))"
        ),
        test=f"{INTEGRATION}test_good_guest.py::test_a13_an_alter_does_not_wait_for_polling",
    ),
    Mutant(
        "all jobs of a hospital share one budget",
        "openmrs/load_budget.py",
        function="Pace.count",
        old="cost_s * self._jobs",
        new="cost_s",
        test=f"{INTEGRATION}test_good_guest.py::test_a17_the_jobs_of_a_hospital_share_one_budget",
    ),
    Mutant(
        "a document that is refused is told by its place in the whole write",
        "destinations/mongo/client.py",
        function="bulk",
        old="half + index",
        new="index",
        test=(
            f"{INTEGRATION}test_mongo_client.py::"
            "test_a_large_write_in_two_halves_tells_of_each_operation_by_its_index"
        ),
    ),
    Mutant(
        "what is on its way is no difference",
        "reconcile/look_again.py",
        function="LookAgain.rounds",
        old="not target.wait(self._progress, self._patience.caught_up_s)",
        new="target is None",
        test=f"{INTEGRATION}test_compare.py::test_a_destination_that_is_behind_is_not_judged",
    ),
    Mutant(
        "who differs is published",
        "reconcile/compare.py",
        function="Comparison._run",
        old="backfill.persons(self._id, self._settings, sorted(confirmed))",
        new="pass",
        test=f"{INTEGRATION}test_compare.py::test_row_50_what_the_binlog_does_not_have_is_repaired",
    ),
    Mutant(
        "nothing compared is not equal",
        "reconcile/report.py",
        function="Report.add",
        old="all(of_hospital.equal for of_hospital in self.hospitals.values())",
        new="not (self.missing or self.extra or self.different)",
        test=f"{UNIT}test_reconcile.py::test_nothing_compared_is_not_equal",
    ),
    Mutant(
        "a tampered record is found",
        "reconcile/by_content.py",
        function="BothEnds._differences",
        old="differences.merge(differing.records(records, self.shown.get(person_id, {})))",
        new="pass",
        test=f"{INTEGRATION}test_verify.py::test_one_wrong_document_is_found_and_nothing_else",
    ),
    Mutant(
        "a silent stream's hospital is polled",
        "cdc/polling/watchdog.py",
        function="Watchdog._is_silent",
        old="now - self._moved_at >= self._settings.cdc.silence_s",
        new="now - self._moved_at >= 1e9",
        test=f"{INTEGRATION}test_watchdog.py::test_binlog_off_and_on_again",
    ),
    Mutant(
        "replay moves no progress of the group's",
        "consumers/replay.py",
        function="_Replay.finish",
        old="self._apply()",
        new='self._apply()\nself._applier._sink.record(sinks.Progress("kigali", 1, "", 1))',
        test=(
            f"{INTEGRATION}test_replay.py::"
            "test_replaying_everything_changes_nothing_and_moves_no_offset"
        ),
    ),
    Mutant(
        "who once bore an erased id by mistake is somebody else",
        "destinations/mongo/erasure.py",
        function="Erasure._at",
        old="person.national_id in (None, self._id)",
        new="person.hospital",
        test="tests/e2e/test_erasure.py::test_a_person_is_erased",
    ),
    Mutant(
        "a row of other types is parked, not worked on",
        "consumers/partition.py",
        function="parse_record",
        old="parse_checked_event(record.value)",
        new="parse_event(record.value)",
        test=f"{UNIT}test_partition.py::test_what_cannot_be_carried",
    ),
    Mutant(
        "an epoch of the future makes nothing outdated",
        "consumers/partition.py",
        function="Partition._is_of_the_future",
        old="is_of_the_future(int(epoch), max(int(self._newest_epoch), published_s))",
        new="not epoch",
        test=f"{UNIT}test_partition.py::test_b14_an_epoch_of_the_future_is_no_epoch",
    ),
    Mutant(
        "a reader takes no epoch of the future for one that was published",
        "cdc/positions.py",
        function="highest_epoch",
        old="record.at_ms is None or not is_of_the_future(epoch, record.at_ms / 1000)",
        new="record",
        test=(
            f"{INTEGRATION}test_poison.py::test_b14_an_epoch_of_the_future_makes_nothing_outdated"
        ),
    ),
    Mutant(
        "what a later release wrote waits, and is not parked",
        "consumers/partition.py",
        function="parse_record",
        old="return NewerRecord(record, newer.version)",
        new="return RejectedRecord(record, newer)",
        test=(
            f"{UNIT}test_partition.py"
            "::test_b21_a_record_of_a_later_release_stops_behind_what_came_before"
        ),
    ),
    Mutant(
        "one row that fails takes no other with it",
        "consumers/halving.py",
        function="in_halves",
        old="len(part) == 1",
        new="part",
        test=(
            f"{INTEGRATION}test_poison.py"
            "::test_b14_a_row_that_cannot_be_enriched_is_found_and_parked"
        ),
    ),
    Mutant(
        "a mapping is a concept's own only if it is the same",
        "openmrs/lookup_queries.py",
        function="",
        old="SAME_AS = 1",
        new="SAME_AS = 2",
        test=(
            f"{INTEGRATION}test_lookups.py"
            "::test_b21_a_mapping_of_another_type_is_not_what_the_concept_is"
        ),
    ),
    Mutant(
        "nobody is linked to what is no patient of the Passport",
        "destinations/mongo/people.py",
        function="",
        old='IS_PATIENT: Document = {"_id": {"$type": "objectId"}}',
        new='IS_PATIENT: Document = {"_id": {"$exists": True}}',
        test=(
            f"{INTEGRATION}test_odd_patients.py"
            "::test_b18_a_patient_whose_id_is_no_object_id_is_nobody"
        ),
    ),
)
