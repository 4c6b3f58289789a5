//! `longtake status`: what a run is doing.

use std::fmt::Write as _;

use longtake_shared::hint::{ExitCode, Failure};

use super::Session;
use super::runtime::wait_for;
use crate::cli::RunArgs;
use crate::operator;
use crate::run::quorum::Quorum;
use crate::status::{AgentStatus, StatusReport, WorkerStatus};
use crate::terminal::phrases;
use crate::terminal::rate::Rate;

pub(super) fn run(args: &RunArgs, session: &Session) -> Result<ExitCode, Failure> {
    let report = wait_for(operator::status(&args.run))??;
    session.console.result(&text(&report), &report)?;
    Ok(ExitCode::Done)
}

/// The run in a few lines, then one line a worker.
fn text(report: &StatusReport) -> String {
    let mut text = format!(
        "run {}: {} for {} (start {} of its coordinator, generation {})",
        report.run,
        format!("{:?}", report.phase).to_lowercase(),
        phrases::length(report.uptime),
        report.incarnation.0,
        report.generation.0,
    );
    match &report.waiting_for {
        Some(Quorum::WorkersMissing { present, needed }) => {
            let _ = write!(text, "\nwaiting for workers: {present} of {needed}");
            let missing: Vec<String> = report.missing.iter().map(ToString::to_string).collect();
            if !missing.is_empty() {
                let _ = write!(text, " (missing: {})", missing.join(", "));
            }
        }
        Some(Quorum::NotLeft { members }) => {
            let _ = write!(text, "\nwaiting for {} workers to leave the last generation", members.len());
        }
        Some(Quorum::OutOfSight) => {
            text.push_str("\nwaiting: the last generation may still train where nobody sees it");
        }
        Some(Quorum::Form { .. }) | None => {}
    }
    if let Some(progress) = &report.progress {
        let stage = progress.stage.name();
        let _ = write!(text, "\n{stage}: {}", phrases::progress(progress, &Rate::default(), None));
    }
    if let Some(committed) = &report.committed {
        let _ = write!(text, "\nsaved checkpoint {} at {}", committed.sequence, committed.step);
    }
    if report.flags.stop {
        text.push_str("\nstopping: it saves at its next step and ends");
    }
    for agent in &report.agents {
        text.push_str(&agent_line(agent));
    }
    for worker in &report.workers {
        text.push_str(&line(worker));
    }
    text
}

fn agent_line(agent: &AgentStatus) -> String {
    let AgentStatus { host, slots, silent, .. } = agent;
    format!("\n  agent on {host}  {slots} slots  heard of {:.1} s ago", silent.0)
}

fn line(worker: &WorkerStatus) -> String {
    let rank = worker.rank.map(|rank| rank.to_string());
    let pid = worker.pid.map(|pid| format!("process {pid}"));
    let lanes = (!worker.lanes.is_empty()).then(|| format!("{} lanes", worker.lanes.len()));
    let doing = worker.doing.map(|doing| {
        format!("{} of {} for {}", doing.phase.name(), doing.step, phrases::length(doing.since))
    });
    let ended = worker.ended.map(|cause| cause.to_string());
    let parts: Vec<String> = [rank, pid, lanes, doing, ended].into_iter().flatten().collect();
    format!("\n  worker {}  {}", worker.index, parts.join("  "))
}
