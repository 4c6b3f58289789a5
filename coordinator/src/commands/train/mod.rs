//! `longtake train`, `longtake pretrain` and `longtake coordinator`: from settings to the mAP table, or to a checkpoint to go on from.

mod committing;
mod conclude;
mod prepare;
mod probe;
mod start;
mod validation;
mod weights;

use std::time::Instant;

use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::units::Seconds;
use tokio::sync::mpsc;

use super::{Session, interruption};
use crate::cli::{ConfigArgs, PretrainArgs, TrainArgs};
use crate::terminal::metrics_file::MetricsFile;
use crate::terminal::reporter::{Reporter, View};
use conclude::Ended;
use prepare::{Origin, Prepared};

pub(super) fn train(args: &TrainArgs, session: &Session) -> Result<ExitCode, Failure> {
    session.worker("train")?;
    run(&prepare::settings(args)?, Workers::OfThisProcess, session)
}

pub(super) fn coordinate(args: &TrainArgs, session: &Session) -> Result<ExitCode, Failure> {
    run(&prepare::settings(args)?, Workers::OfAgents, session)
}

pub(super) fn pretrain(args: &PretrainArgs, session: &Session) -> Result<ExitCode, Failure> {
    let ConfigArgs { config, overrides } = &args.config;
    let mut prepared = prepare::new_run(config, overrides)?;
    prepare::leave_out_training(&mut prepared.resolved.config)?;
    session.worker("pretrain")?;
    run(&prepared, Workers::OfThisProcess, session)
}

/// Who starts the workers of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Workers {
    /// This process is their agent, too.
    OfThisProcess,
    /// Agents that come from elsewhere.
    OfAgents,
}

impl Workers {
    /// The command that goes on with a run.
    fn command(self) -> &'static str {
        match self {
            Self::OfThisProcess => "train",
            Self::OfAgents => "coordinator",
        }
    }
}

/// Starts the run, shows it to its end, and says what it leaves behind.
fn run(prepared: &Prepared, workers: Workers, session: &Session) -> Result<ExitCode, Failure> {
    let ended = begin_and_end(prepared, workers, session);
    ended.map_err(|failure| match (failure.exit, prepared.origin) {
        // A run that has begun before is gone on with by the command that was given.
        (ExitCode::Interrupted, Origin::Folder | Origin::Store) => Failure {
            message: "stopped by a signal before the run went on: it stands where it stood".to_owned(),
            exit: ExitCode::Preempted,
            ..failure
        },
        _ => failure,
    })
}

fn begin_and_end(prepared: &Prepared, workers: Workers, session: &Session) -> Result<ExitCode, Failure> {
    let config = &prepared.resolved.config;
    let interruption = interruption::in_order()?;
    prepare::make_data(config, &interruption.stop, session)?;
    let dataset = prepare::dataset(config, session.console)?;
    let lanes = prepare::lanes(config, &dataset)?;
    // A control plane without the worker library leaves it to the workers.
    if let Some(worker) = session.worker.filter(|_| prepared.origin == Origin::Nothing) {
        probe::videos(config, &dataset, worker, &interruption.stop, session.console)?;
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
    let outcome = start::start(prepared, workers, &dataset, lanes, sender, interruption, session.console);
    // A panic of the watching thread has been reported and must not hide the outcome.
    let (report, saved) = watching.join().unwrap_or_default();
    let (outcome, elapsed) = (outcome?, Seconds(begun.elapsed().as_secs_f64()));
    let ended = Ended { outcome, report, saved, elapsed, command: workers.command() };
    conclude::conclude(&ended, prepared, &dataset, session)
}
