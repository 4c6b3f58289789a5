//! The golden suite: tensors that published implementations computed, against what Longtake computes from the same input.
//!
//! Takes: a folder of cases (`tests/golden/cases`, or `LONGTAKE_GOLDEN_DIR`). Gives: one test a case of the groups that
//! are built so far. A module that nobody runs is a failure, not a case left out.

mod backbone;
mod detector;
mod evaluation;
mod head;
mod infer;
mod losses;
mod sampling;
mod schedule;
mod support;
mod train;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use support::{Case, Entry, Runner};

/// Groups of `manifest.json` whose modules exist; every case of these must pass.
const BUILT: [&str; 2] = ["foundation", "evaluation"];

/// Cases of the repository; another folder may hold more. Without this an empty manifest would pass.
const CASES: usize = 66;

/// Who runs which module (the `module` of a case's JSON).
const REGISTRIES: [&[(&str, Runner)]; 9] = [
    backbone::RUNNERS,
    head::RUNNERS,
    losses::RUNNERS,
    infer::RUNNERS,
    detector::RUNNERS,
    sampling::RUNNERS,
    train::RUNNERS,
    schedule::RUNNERS,
    evaluation::RUNNERS,
];

fn runner(module: &str) -> Option<Runner> {
    REGISTRIES
        .iter()
        .flat_map(|list| list.iter())
        .find(|(prefix, _)| support::same_module(prefix, module))
        .map(|(_, runner)| *runner)
}

fn trial(entry: Entry) -> Trial {
    Trial::test(format!("{}::{}", entry.group, entry.name), move || {
        let run = runner(&entry.module)
            .ok_or_else(|| format!("nothing runs the module `{}` of a built group", entry.module))?;
        let case = Case::load(&entry)?;
        run(&case)?;
        Ok(())
    })
}

fn main() -> ExitCode {
    let trials = match support::entries() {
        Ok(entries) => {
            let built: Vec<Entry> =
                entries.into_iter().filter(|entry| BUILT.contains(&entry.group.as_str())).collect();
            let count = built.len();
            let mut trials: Vec<Trial> = built.into_iter().map(trial).collect();
            trials.push(Trial::test("no_case_is_missing", move || {
                let enough = count >= CASES;
                enough.then_some(()).ok_or_else(|| format!("{count} cases instead of {CASES}").into())
            }));
            trials
        }
        Err(reason) => vec![Trial::test("manifest", move || Err(reason.into()))],
    };
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
