//! `longtake train` and `longtake pretrain`: from settings to the mAP table, or to a checkpoint to go on from.

mod committing;
mod conclude;
mod prepare;
mod start;
mod validation;
mod weights;

use std::time::Instant;

use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::units::Seconds;
use tokio::sync::mpsc;

use super::Session;
use crate::cli::{ConfigArgs, PretrainArgs, TrainArgs};
use crate::terminal::metrics_file::MetricsFile;
use crate::terminal::reporter::{Reporter, View};
use conclude::Ended;
use prepare::Prepared;

pub(super) fn train(args: &TrainArgs, session: &Session) -> Result<ExitCode, Failure> {
    run(&prepare::settings(args)?, session)
}

pub(super) fn pretrain(args: &PretrainArgs, session: &Session) -> Result<ExitCode, Failure> {
    let ConfigArgs { config, overrides } = &args.config;
    let mut prepared = prepare::new_run(config, overrides)?;
    prepare::leave_out_training(&mut prepared.resolved.config)?;
    run(&prepared, session)
}

/// Starts the run, shows it to its end, and says what it leaves behind.
fn run(prepared: &Prepared, session: &Session) -> Result<ExitCode, Failure> {
    let worker = session.worker("train")?;
    let config = &prepared.resolved.config;
    prepare::make_data(config, worker, session.console)?;
    let dataset = prepare::dataset(config, session.console)?;
    let lanes = prepare::lanes(config, &dataset)?;
    if !prepared.resume {
        prepare::probe_videos(config, &dataset, worker, session.console)?;
        weights::check(config, worker, session.console)?;
    }

    let begun = Instant::now();
    let metrics = MetricsFile::open(&prepared.folder.metrics())?;
    let view = View::of_process(session.console.live());
    let mut reporter = Reporter::new(view, Some(metrics), Some(config.train.epochs));
    let (sender, mut updates) = mpsc::unbounded_channel();
    let watching = std::thread::spawn(move || {
        while let Some(update) = updates.blocking_recv() {
            reporter.show(&update);
        }
        reporter.close()
    });
    let outcome = start::start(prepared, &dataset, lanes, sender, session.console);
    // A panic of the watching thread has been reported and must not hide the outcome.
    let report = watching.join().ok().flatten();
    let ended = Ended { outcome: outcome?, report, elapsed: Seconds(begun.elapsed().as_secs_f64()) };
    conclude::conclude(&ended, prepared, &dataset, session)
}
