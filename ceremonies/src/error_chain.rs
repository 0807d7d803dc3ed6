//! An error with its causes as one sentence.

use std::error::Error;

/// `what: why: why`, without repeating a cause that the text before it holds already.
pub(crate) fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let why = error.to_string();
        let why = why.trim_end();
        if !text.contains(why) {
            text.push_str(": ");
            text.push_str(why);
        }
        cause = error.source();
    }
    text
}
