//! The store's contract, the same on SQLite and on PostgreSQL.
//!
//! Each case is a function over a [`place::Place`]; the list below runs all of them on both. PostgreSQL is
//! started by the tests themselves (Debian's package `postgresql`); without it they fail, they do not skip.

mod committing;
mod counting;
mod data_keys;
mod opening;
mod outages;
mod place;
mod postgres;
mod proxy;
mod reading;
mod tokens;

use kms_core::suite::Suite;
use place::Place;

/// Runs a case on a runtime of its own thread, so that the thread's clock is the case's.
fn run(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(case);
}

macro_rules! contract {
    ($($case:path as $name:ident),* $(,)?) => {
        mod on_sqlite {
            use super::*;
            $(#[test] fn $name() { run(async { $case(Place::sqlite(Suite::Sm).await).await }) })*
        }
        mod on_postgres {
            use super::*;
            $(#[test] fn $name() { run(async { $case(Place::postgres(Suite::Intl).await).await }) })*
        }
    };
}

contract! {
    opening::created_once as a_database_is_created_once_and_then_left_as_it_is,
    opening::missing as what_is_not_there_is_missing_and_nothing_is_created,
    opening::empty as an_empty_database_is_missing_and_stays_empty,
    opening::foreign as a_database_of_another_deployment_is_refused,
    opening::newer as a_newer_schema_is_refused,
    opening::at_once as of_two_that_create_at_once_one_is_told_that_it_exists,
    committing::one_row as a_batch_is_one_segment_row_and_indexes_have_no_gaps,
    committing::clock as time_never_goes_back_even_if_the_clock_does,
    committing::stale as a_stale_entry_goes_back_and_the_rest_of_its_batch_commits,
    committing::taken as a_taken_name_or_id_is_refused_and_the_rest_of_its_batch_commits,
    committing::conflict as an_update_of_another_revision_is_refused,
    committing::all_refused as a_batch_of_refusals_writes_nothing,
    committing::shrunk as a_log_that_shrinks_under_a_running_node_is_written_no_more,
    committing::two_nodes as two_nodes_interleave_without_a_gap_and_both_verify,
    committing::large as a_batch_beyond_a_mebibyte_is_split,
    tokens::replayed as a_token_replays_its_request_and_refuses_another,
    tokens::refused as a_refused_change_leaves_no_token,
    tokens::expired as a_token_is_forgotten_after_a_day,
    tokens::scoped as a_token_belongs_to_one_caller_and_method,
    tokens::strange as a_strange_token_takes_nobody_with_it,
    counting::taken as encryptions_are_taken_once_and_an_edited_count_is_refused,
    data_keys::changed as a_data_key_is_changed_under_its_revision_and_a_token_makes_it_once,
    data_keys::edited as an_edited_or_moved_row_of_a_data_key_is_refused,
    data_keys::destroyed as a_destroyed_data_key_keeps_no_ciphertext_and_is_counted_no_more,
    reading::aliased as an_alias_names_one_key_and_goes_from_one_to_the_next,
    reading::edited as an_edited_row_is_refused,
    reading::moved as a_version_moved_to_another_key_is_refused,
    reading::destroyed as a_destruction_is_read_as_it_was_written_and_cannot_be_edited,
    reading::listed as keys_are_listed_by_name_from_a_name_on,
    reading::segments as segments_are_found_by_any_index_in_them,
    reading::checkpoints as a_checkpoint_is_kept_with_its_tree_and_the_log_goes_on_from_it,
    outages::full as a_full_queue_refuses_and_what_it_took_is_committed,
    outages::held as a_commit_that_gets_no_lock_is_refused_in_time_and_later_ones_work,
    outages::closed as a_closed_database_acknowledges_nothing,
}
