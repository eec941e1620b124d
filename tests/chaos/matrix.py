"""The failure matrix: for each row of crashes and faults, the tests that hold what must and must not happen.

``python -m tests.chaos.matrix`` writes it into docs/failure-matrix.md. The chaos run (``make chaos``) covers rows
1 to 9, 15, 16, 19, 20 and 23 once more, all mixed together.
"""

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "failure-matrix.md"


@dataclass(frozen=True)
class Row:
    """``tests`` are pytest ids, without parameters, below tests/."""

    number: int
    title: str
    tests: tuple[str, ...]


_EXPLORER = "unit/test_crash_explorer.py::test_an_order_survives_a_kill_at_every_point"
_KILLED = "chaos/test_kills.py::test_a_kill_between_two_steps_loses_and_doubles_nothing"
_REDELIVERY = "contract/test_redelivery.py::"
_DECIDE = "unit/test_decide.py::"
_ORDER = "integration/test_an_order_reaches_its_end.py::"
_WORKERS = "integration/test_workers_on_kafka.py::"
_OUTAGES = "chaos/test_outages.py::"
_LATE = "chaos/test_late_evidence.py::"
_RESTARTS = "chaos/test_restarts.py::"

ROWS: tuple[Row, ...] = (
    Row(
        1,
        "before the intent is committed",
        (
            _EXPLORER,
            _KILLED,
            _RESTARTS + "test_a_worker_that_starts_slowly_on_a_backlog_skips_nothing",
            _RESTARTS + "test_what_a_rebalance_throws_away_is_read_again_where_nothing_was_committed_yet",
        ),
    ),
    Row(
        2,
        "intent committed, offset not",
        (_EXPLORER, _KILLED, _REDELIVERY + "test_an_order_is_written_down_leased_and_sent_once"),
    ),
    Row(
        3,
        "`sending` committed, the process dies anywhere up to the commit of the outcome",
        (
            _EXPLORER,
            _KILLED,
            _REDELIVERY + "test_a_crash_before_the_outcome_never_sends_again",
            _WORKERS + "test_workers_killed_again_and_again",
        ),
    ),
    Row(
        4,
        "provider executed, answer lost or timed out",
        (
            _ORDER + "test_a_lost_answer_is_found_by_looking_it_up_and_bought_once",
            "contract/test_simulator_adapters.py::test_a_lost_answer_is_one_request_and_found_by_reference",
        ),
    ),
    Row(
        5,
        "5xx, HTML, truncated, unreadable answer",
        (
            _ORDER + "test_a_lost_answer_is_found_by_looking_it_up_and_bought_once",
            "contract/test_providers_znet.py::test_a_placement_answer_has_one_meaning",
            "contract/test_http_errors.py::test_after_the_request_left_every_failure_is_unknown_and_costs_one_request",
        ),
    ),
    Row(
        6,
        "outcome committed, events not emitted",
        (
            _KILLED,
            _REDELIVERY + "test_an_outcome_that_was_stored_and_not_told_is_told_on_redelivery",
            "chaos/test_command_kills.py::test_a_kill_while_a_command_is_carried_out_loses_and_doubles_nothing",
        ),
    ),
    Row(
        7,
        "events emitted, offset not committed",
        (
            _KILLED,
            "contract/test_views.py::test_old_versions_and_duplicates_change_nothing",
            "contract/test_clients.py::test_changes_come_typed_in_order_and_each_version_once",
        ),
    ),
    Row(
        8,
        "rebalance while a call is in flight, old owner alive",
        (
            _REDELIVERY + "test_while_a_lease_runs_nobody_else_sends_or_settles",
            _WORKERS + "test_scale_out_stop_of_one_and_kill_of_the_other",
            "unit/test_fetches.py::test_what_a_rebalance_overtakes_is_given_out_no_more_and_commits_nothing",
        ),
    ),
    Row(
        9,
        "process frozen longer than its lease, then resumed",
        (
            _WORKERS + "test_a_frozen_worker_holds_nobody_up_and_sends_nothing_when_it_wakes",
            "contract/test_ledger.py::test_a_transaction_that_stands_still_holds_nobody_up",
            "contract/test_leader.py::test_a_leader_that_froze_leads_no_longer_and_one_that_works_for_long_does",
            _REDELIVERY + "test_a_success_that_comes_after_the_lease_is_kept",
        ),
    ),
    Row(
        10,
        "not found right after a timeout",
        (
            _DECIDE + "test_absence_needs_enough_answers_late_enough_and_over_long_enough",
            "contract/test_providers_znet.py::test_not_found_needs_a_negative_answer_between_two_healthy_balances",
        ),
    ),
    Row(
        11,
        "the look-up itself fails",
        (
            _DECIDE + "test_a_failed_question_between_proves_nothing_and_counts_for_nothing",
            "unit/test_lanes.py::test_failed_checks_in_a_row_close_the_lane",
        ),
    ),
    Row(
        12,
        "late success after proven absence and a re-buy",
        (
            _LATE + "test_a_success_that_shows_after_absence_was_proven_is_told_with_both_facts",
            _DECIDE + "test_a_success_after_proven_absence_raises_attention_with_both_facts",
        ),
    ),
    Row(13, "success, later reversed", (_LATE + "test_a_success_that_is_taken_back_is_told_and_settles_nothing",)),
    Row(
        14,
        "replay or second order while an attempt is live",
        (
            _LATE + "test_what_is_asked_for_while_an_attempt_is_live_buys_nothing_more",
            "contract/test_ledger.py::test_a_live_attempt_of_any_state_bars_the_next",
            "unit/test_acts.py::test_a_person_may_not_end_an_order_over_a_live_attempt",
            "contract/test_operator.py::test_what_is_being_sent_is_neither_cancelled_nor_sent_elsewhere",
            "contract/test_operator.py::test_different_commands_at_once_leave_one_live_attempt",
        ),
    ),
    Row(
        15,
        "PostgreSQL down or failed over",
        (
            _OUTAGES + "test_without_postgresql_nothing_is_sent_and_everything_goes_on_when_it_is_back",
            _REDELIVERY + "test_without_the_store_nothing_is_sent",
            _REDELIVERY + "test_an_answer_outlives_a_store_that_is_away",
        ),
    ),
    Row(
        16,
        "Kafka down, brokers restart",
        (
            _OUTAGES + "test_a_broker_that_restarts_is_waited_for",
            _OUTAGES + "test_a_broker_that_falls_silent_while_tables_are_recovered_is_waited_for",
            _REDELIVERY + "test_a_broker_that_was_away_loses_no_event_of_a_check",
            "integration/test_apache_kafka.py::test_three_nodes_keep_acknowledged_records_when_one_is_killed",
        ),
    ),
    Row(
        17,
        "retry topic lost or expired, its consumer dead",
        (
            _OUTAGES + "test_checks_that_a_retry_topic_lost_are_asked_again_by_the_sweep",
            "chaos/test_delay_rebalance.py::test_a_partition_that_went_and_came_back_asleep_wakes_up",
        ),
    ),
    Row(
        18,
        "a dead letter cannot be written",
        (
            _OUTAGES + "test_an_event_whose_dead_letter_cannot_be_written_is_kept",
            "unit/test_guard.py::test_a_dead_letter_that_cannot_be_written_keeps_the_event",
        ),
    ),
    Row(
        19,
        "an order twice, the same or with other content",
        (
            _ORDER + "test_orders_end_and_the_four_books_agree",
            _ORDER + "test_the_same_id_with_other_content_is_told_and_the_first_one_wins",
        ),
    ),
    Row(
        20,
        "clock skew between hosts",
        (
            "chaos/test_clock.py::test_five_minutes_of_skew_change_no_time_and_no_owner",
            "contract/test_ledger.py::test_only_the_databases_clock_ends_a_lease",
        ),
    ),
    Row(
        21,
        "poison event",
        (_ORDER + "test_malformed_events_become_dead_letters_that_name_the_field_and_the_partition_goes_on",),
    ),
    Row(
        22,
        "provider account locked out",
        (
            _OUTAGES + "test_orders_wait_while_the_account_is_locked_and_one_attention_tells_it",
            _REDELIVERY + "test_a_locked_account_keeps_orders_waiting_and_the_fallback_idle",
        ),
    ),
    Row(
        23,
        "rolling restart, mixed versions",
        (
            _RESTARTS + "test_two_releases_side_by_side_read_each_others_events",
            _WORKERS + "test_a_rolling_restart_loses_and_doubles_nothing",
        ),
    ),
    Row(
        24,
        "disk of a worker lost",
        (_RESTARTS + "test_a_worker_that_lost_its_disk_rebuilds_its_table_and_buys_nothing_again",),
    ),
)


def markdown() -> str:
    """One line per row; the names of the tests are sentences."""
    lines = ["| # | crash or fault | tests |", "|---|---|---|"]
    for row in ROWS:
        tests = "<br>".join(f"`{test}`" for test in row.tests)
        lines.append(f"| {row.number} | {row.title} | {tests} |")
    return "\n".join(lines)


def written(page: str) -> str:
    """The page with this table in place of the one that it has."""
    return re.sub(r"^\| # \|.*?(?=\n\n)", lambda _: markdown(), page, count=1, flags=re.MULTILINE | re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
