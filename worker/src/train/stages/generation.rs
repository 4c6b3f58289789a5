//! What a worker does in one generation after another: reach the peers, come to the state that all go on from, say ready,
//! pretrain, fill the memory, train.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longtake_shared::config::MemoryInit;
use longtake_shared::ids::{Generation, Step};

use crate::collective::{
    Aborter, Collective, CollectiveError, Local, Membership, RingListener, SharedCollective,
};
use crate::control::{Assignment, Directive, Ending, Kept, SavedStage, Session};
use crate::train::TrainError;
use crate::train::checkpointing::restore_or_init;
use crate::train::checkpointing::save::{Archive, Saver, Snapshot};
use crate::train::checkpointing::schedule::Rhythm;
use crate::train::memory::lane_memory::LaneMemory;
use crate::train::memory::memory_init;
use crate::train::run::context::{RunContext, Workplace};
use crate::train::run::phase_recording::Waiting;
use crate::train::stages::pretrain;
use crate::train::stages::trainer::Trainer;
use crate::train::state::worker_state::{State, WorkerState};
use crate::train::state_transfer::execute;
use crate::train::step::gradient_sync::Wish;

/// How long peers of a generation may take to reach each other.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);

/// Why a worker is no longer in its generation, where nothing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The run has come to its end, or to the stop that was wished, at this step.
    Finished(Ending, Step),
    /// All ranks have left, so that others can join.
    Left,
}

/// Forms the collective of a generation.
pub type Connect = Box<dyn Fn(&Assignment, Aborter) -> Result<Box<dyn Collective>, CollectiveError> + Send>;

/// A worker's process: what it is, and what it holds from one generation to the next.
pub struct Worker {
    session: Arc<Session>,
    index: u32,
    connect: Connect,
    place: Option<Place>,
    pub(in crate::train) worker_state: WorkerState,
}

/// What does not depend on the members of a generation.
struct Place {
    workplace: Workplace,
    archive: Archive,
}

impl Worker {
    /// A worker that holds nothing yet. `connect` reaches the peers of a generation.
    pub fn new(session: Arc<Session>, index: u32, connect: Connect) -> Self {
        Self { session, index, connect, place: None, worker_state: WorkerState::default() }
    }

    /// What it could go on from.
    pub fn kept(&self) -> Option<Kept> {
        self.worker_state.kept()
    }

    /// Plays this worker's part of a generation to its end.
    ///
    /// # Errors
    /// Whatever ends it early; [`TrainError::Collective`] where the cause lies elsewhere. What the worker holds is whole in any
    /// case.
    pub fn live(&mut self, assignment: Assignment) -> Result<Ended, TrainError> {
        let generation = assignment.generation;
        // An abort ends the attempt to connect, and later every pending call.
        let aborter = Aborter::new()?;
        let on_abort = aborter.clone();
        self.session.on_abort(Box::new(move |over, reason| {
            // The end of the generation before may be told late.
            if over >= generation {
                on_abort.abort(reason);
            }
        }));
        if let Some(reason) = self.session.over(generation) {
            aborter.abort(reason);
        }
        let place = Place::of(&mut self.place, &assignment.settings_json, &assignment.run_folder)?;
        let collective = (self.connect)(&assignment, aborter)?;
        let collective = Waiting { collective, session: Arc::clone(&self.session) };
        let collective = SharedCollective::new(Box::new(collective));
        let carried = assignment.carried.clone();
        let session = Arc::clone(&self.session);
        let run = RunContext::new(session, self.index, assignment, collective, &place.workplace)?;
        let begun = match carried {
            Some(carried) => execute::carry(&run, &mut self.worker_state, &place.archive, &carried),
            None => restore_or_init::begin(&run, &mut self.worker_state, &place.archive),
        };
        place.archive.end_loading();
        begun?;
        play(&run, &mut self.worker_state, &mut place.archive)
    }
}

impl Place {
    /// The place for these settings; it is made once.
    fn of<'a>(
        place: &'a mut Option<Self>,
        settings_json: &str,
        run_folder: &Path,
    ) -> Result<&'a mut Self, TrainError> {
        let fitting = place.take().filter(|place| place.workplace.fits(settings_json));
        let open = || {
            let workplace = Workplace::open(settings_json)?;
            let archive = Archive::open(&workplace.config, run_folder)?;
            Ok::<_, TrainError>(Self { workplace, archive })
        };
        Ok(place.insert(fitting.map_or_else(open, Ok)?))
    }
}

/// Reaches the peers over TCP; a world of one has none.
///
/// # Errors
/// The generation was aborted, or a peer did not come.
pub fn connect(
    listener: &RingListener,
    assignment: &Assignment,
    aborter: Aborter,
) -> Result<Box<dyn Collective>, CollectiveError> {
    if assignment.world == 1 {
        aborter.check()?;
        return Ok(Box::new(Local::new(assignment.generation, aborter)));
    }
    let membership =
        Membership { run: assignment.run.clone(), generation: assignment.generation, rank: assignment.rank };
    let deadline = Instant::now() + CONNECT_DEADLINE;
    Ok(Box::new(listener.connect(&membership, &assignment.peers, deadline, aborter)?))
}

/// Says ready, waits for the others, and goes through the stages.
fn play(
    run: &RunContext,
    worker_state: &mut WorkerState,
    archive: &mut Archive,
) -> Result<Ended, TrainError> {
    let generation = run.assignment.generation;
    let samples = match &worker_state.state {
        Some(State::Train(state)) => Some(run.read_ahead(state.learner.step)?),
        _ => None,
    };
    run.session.ready(generation)?;
    wait_for_all(&run.session, generation)?;
    if let Some(memory) = &mut worker_state.memory {
        // Until now whoever takes over a lane might have failed.
        memory.keep_only(run.own_lanes())?;
    }
    let mut saver = Saver::new(run, archive);
    if let Some(State::Pretrain(state)) = &mut worker_state.state {
        if let Some(ended) = pretrain::train(run, state, &mut saver)? {
            return Ok(ended);
        }
        if run.place.total_steps() == 0 {
            saver.finish()?;
            return Ok(Ended::Finished(Ending::Completed, state.learner.step));
        }
        run.session.rest();
        let backbone = state.learner.module.backbone.clone();
        worker_state.state = Some(restore_or_init::first_training(run, Some(backbone))?);
        let memory = LaneMemory::of(&mut worker_state.memory, run)?;
        for &lane in run.own_lanes() {
            memory.begin_empty(run, lane)?;
            memory.settle(lane);
        }
    }
    let (Some(State::Train(state)), Some(memory)) = (&mut worker_state.state, &mut worker_state.memory)
    else {
        return Err(TrainError::HoldsOther { step: Step(0) });
    };
    if run.place.total_steps() == 0 {
        return Ok(Ended::Finished(Ending::Completed, Step(0)));
    }
    if state.learner.step == Step(0) && run.place.config.memory.init == MemoryInit::Extract {
        match memory_init::fill(run, &state.learner.module.backbone, memory)? {
            Wish::GoOn => {}
            Wish::Leave => {
                saver.finish()?;
                return Ok(Ended::Left);
            }
            Wish::Stop => {
                saver.start(Snapshot::take(run, SavedStage::Train, &state.learner, None, state.facts())?)?;
                saver.finish()?;
                return Ok(Ended::Finished(Ending::Stopped, Step(0)));
            }
        }
    }
    let samples = match samples {
        Some(samples) => samples,
        None => run.read_ahead(state.learner.step)?,
    };
    let (steps, rhythm) = (run.step_runner(), Rhythm::new(&run.place.config.checkpoint));
    Trainer { run, steps, state, memory, saver, rhythm, samples, told_of_damage: false }.train()
}

/// Returns when every rank is ready.
fn wait_for_all(session: &Session, generation: Generation) -> Result<(), TrainError> {
    loop {
        if matches!(session.next_within(generation)?, Directive::Train { generation: begun } if begun == generation)
        {
            return Ok(());
        }
    }
}
