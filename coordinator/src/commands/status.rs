//! `longtake status`: what a run is doing.

use std::fmt::Write as _;

use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::units::counted;

use super::Session;
use super::run_state::unanswered;
use super::runtime::wait_for;
use crate::cli::RunArgs;
use crate::operator;
use crate::run::quorum::Quorum;
use crate::status::{AgentStatus, StatusReport, WorkerStatus};
use crate::terminal::phrases;
use crate::terminal::rate::Rate;

pub(super) fn run(args: &RunArgs, session: &Session) -> Result<ExitCode, Failure> {
    let report = wait_for(operator::status(&args.run))?.map_err(|error| unanswered(&args.run, error))?;
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
            let _ = write!(
                text,
                "\nwaiting for {} to leave the last generation",
                counted(members.len(), "worker")
            );
        }
        Some(Quorum::OutOfSight) => {
            text.push_str("\nwaiting: the last generation may still train where nobody sees it");
        }
        Some(Quorum::Searching) => text.push_str("\nlooking for the newest whole checkpoint"),
        Some(Quorum::Saving) => text.push_str("\nwaiting for the checkpoint that is on its way"),
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
    format!("\n  agent on {host}  {}  heard of {:.1} s ago", counted(*slots, "slot"), silent.0)
}

fn line(worker: &WorkerStatus) -> String {
    let rank = worker.rank.map(|rank| rank.to_string());
    let pid = worker.pid.map(|pid| format!("process {pid}"));
    let lanes = (!worker.lanes.is_empty()).then(|| counted(worker.lanes.len(), "lane"));
    let doing = worker.doing.map(|doing| {
        format!("{} of {} for {}", doing.phase.name(), doing.step, phrases::length(doing.since))
    });
    let ended = worker.ended.map(|cause| cause.to_string());
    let parts: Vec<String> = [rank, pid, lanes, doing, ended].into_iter().flatten().collect();
    format!("\n  worker {}  {}", worker.index, parts.join("  "))
}

#[cfg(test)]
mod tests {
    use longtake_shared::ids::{AgentId, Generation, Incarnation, Rank, RunId, Step, WorkerId};
    use longtake_shared::protocol::stamp::StepPhase;
    use longtake_shared::protocol::{Doing, Flags};
    use longtake_shared::units::Seconds;

    use super::*;
    use crate::run::phase::PhaseKind;

    #[test]
    fn agents_and_who_is_missing_are_shown() {
        let doing = Doing { step: Step(7), phase: StepPhase::Look, since: Seconds(12.0) };
        let worker = WorkerStatus {
            index: 0,
            worker: WorkerId("w0.0".into()),
            rank: Some(Rank(0)),
            lanes: vec![],
            pid: Some(41),
            ended: None,
            alive: true,
            done: None,
            doing: Some(doing),
        };
        let agent = AgentStatus {
            agent: AgentId("a".into()),
            host: "node-a".into(),
            slots: 2,
            silent: Seconds(0.31),
        };
        let report = StatusReport {
            run: RunId("mine".into()),
            incarnation: Incarnation(2),
            generation: Generation(5),
            phase: PhaseKind::Gathering,
            waiting_for: Some(Quorum::WorkersMissing { present: 1, needed: 3 }),
            uptime: Seconds(61.0),
            agents: vec![agent],
            missing: vec![1, 2],
            workers: vec![worker],
            progress: None,
            flags: Flags::default(),
            committed: None,
            stale_messages: 0,
            outcome: None,
        };
        let expected = "run mine: gathering for 1 min 01 s (start 2 of its coordinator, generation 5)
waiting for workers: 1 of 3 (missing: 1, 2)
  agent on node-a  2 slots  heard of 0.3 s ago
  worker 0  rank 0  process 41  look of step 7 for 12 s";
        assert_eq!(text(&report), expected);
    }
}
