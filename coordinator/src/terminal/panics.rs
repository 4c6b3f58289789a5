//! A bug ends the process with one sentence and exit code 1, never with a stack trace.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

use longtake_shared::hint::ExitCode;

/// From now on a panic of any thread is reported as one sentence.
pub fn report_as_one_sentence() {
    std::panic::set_hook(Box::new(|info| {
        // Nobody is left to tell that standard error is closed.
        drop(writeln!(std::io::stderr(), "{}", sentence(info)));
    }));
}

/// Runs `work`; a panic, which the hook has reported, ends as a failure.
pub fn contain(work: impl FnOnce() -> ExitCode) -> ExitCode {
    // What a panic leaves half changed is not looked at again: the process ends.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(ExitCode::Failed)
}

fn sentence(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown".to_owned());
    let place =
        info.location().map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
    let message = message.lines().next().unwrap_or_default();
    format!(
        "error: Longtake has a bug: {message}{place}\n\
         hint: please report it with the command you typed and the run's logs"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure() {
        assert_eq!(contain(|| ExitCode::Preempted), ExitCode::Preempted);
        assert_eq!(contain(|| panic!("on purpose, in a test")), ExitCode::Failed);
    }
}
