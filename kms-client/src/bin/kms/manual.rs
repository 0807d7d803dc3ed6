//! `kms completions` and `kms man`: made from the command line's own description, so that they cannot disagree.

use crate::args::Arguments;
use crate::output::{Failure, write_out};
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use std::io;
use std::path::Path;

pub fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "kms", &mut script);
    print(&script)
}

/// The page of `kms` itself, or into a folder a page for every command.
pub fn pages(folder: Option<&Path>) -> Result<(), Failure> {
    let command = Arguments::command();
    let failed = |error: io::Error| Failure::new(format!("the manual cannot be written: {error}"), "kms man");
    match folder {
        Some(folder) => clap_mangen::generate_to(command, folder).map_err(failed),
        None => {
            let mut page = Vec::new();
            // As generate_to does: `kms help` has no page of its own.
            Man::new(command.disable_help_subcommand(true)).render(&mut page).map_err(failed)?;
            print(&page)
        }
    }
}

fn print(text: &[u8]) -> Result<(), Failure> {
    write_out(&String::from_utf8_lossy(text))
}
