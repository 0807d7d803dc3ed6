//! Named moments at which a test build kills its own process, as `kill -9` would: armed by `KMS_CRASH_AT=MOMENT`, and only in
//! builds with the feature `crash-moments`.

/// The process has reached a moment.
#[cfg(not(feature = "crash-moments"))]
pub(crate) fn at(_moment: &str) {}

/// The process has reached a moment.
#[cfg(feature = "crash-moments")]
pub(crate) fn at(moment: &str) {
    if std::env::var("KMS_CRASH_AT").is_ok_and(|armed| armed == moment) {
        eprintln!("crash test: killed at {moment}");
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}
