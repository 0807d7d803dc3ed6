//! Every parser of bytes from outside, fed with what nobody would send: it neither panics nor hangs, and what it takes it
//! writes back as it was. `KMS_SEED` repeats a run; `scripts/deep parsers` feeds each parser for longer.

mod made;
mod mutation;
mod pairs;
mod printed;
mod random;
mod signed;
mod stored;
mod target;
mod texts;
mod wire;

#[test]
fn every_stored_structure_has_one_encoding() {
    target::feed("structures", &stored::targets());
}

#[test]
fn nothing_that_was_changed_passes_as_signed() {
    target::feed("signed structures", &signed::targets());
}

#[test]
fn ciphertexts_files_and_logs_are_read_as_they_were_written() {
    target::feed("ciphertexts, files and logs", &wire::targets());
}

#[test]
fn keys_signatures_and_ciphertexts_of_pairs_have_one_form() {
    target::feed("pairs", &pairs::targets());
}

#[test]
fn names_and_profiles_are_read_as_they_were_written() {
    target::feed("names and profiles", &texts::targets());
}

#[test]
fn shares_on_paper_are_read_as_they_were_printed() {
    target::feed("shares on paper", &printed::targets());
}
