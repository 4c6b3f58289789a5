//! `longtake train` and `longtake pretrain`: from settings to the mAP table, or to a checkpoint to go on from.

mod conclude;
mod prepare;
mod start;

use std::sync::mpsc;
use std::time::Instant;

use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::units::Seconds;

use super::Session;
use crate::cli::{ConfigArgs, PretrainArgs, TrainArgs};
use crate::terminal::metrics_file::MetricsFile;
use crate::terminal::reporter::{Reporter, View};
use conclude::Ended;
use prepare::Prepared;
use start::Stages;

pub(super) fn train(args: &TrainArgs, session: &Session) -> Result<ExitCode, Failure> {
    let prepared = prepare::settings(args)?;
    run(&prepared, Stages::All, session)
}

pub(super) fn pretrain(args: &PretrainArgs, session: &Session) -> Result<ExitCode, Failure> {
    let ConfigArgs { config, overrides } = &args.config;
    let prepared = prepare::new_run(config, overrides)?;
    prepare::require_pretraining(&prepared.resolved.config)?;
    run(&prepared, Stages::PretrainOnly, session)
}

/// Starts the run, shows it to its end, and says what it leaves behind.
fn run(prepared: &Prepared, stages: Stages, session: &Session) -> Result<ExitCode, Failure> {
    let worker = session.worker("train")?;
    let config = &prepared.resolved.config;
    prepare::make_data(config, worker, &session.console)?;
    let dataset = prepare::dataset(config, &session.console)?;

    let begun = Instant::now();
    let metrics = MetricsFile::open(&prepared.folder.metrics())?;
    let view = View::of_process(session.console.live());
    let mut reporter = Reporter::new(view, Some(metrics), Some(config.train.epochs));
    let (sender, updates) = mpsc::channel();
    let watching = std::thread::spawn(move || {
        for update in updates {
            reporter.show(&update);
        }
        reporter.close()
    });
    let outcome = start::start(prepared, stages, sender)?;
    // A panic of the watching thread has been reported and must not hide the outcome.
    let report = watching.join().ok().flatten();
    let ended = Ended { outcome, report, elapsed: Seconds(begun.elapsed().as_secs_f64()) };
    conclude::conclude(&ended, prepared, &dataset, session)
}
