//! The files of a data set are decoded in part or whole, as many at a time as there are cores.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use longtake_shared::config::DataConfig;
use longtake_shared::dataset::{Examined, Unreadable, Video};
use longtake_shared::role::{Depth, ProbeRequest};
use longtake_shared::stop::Stop;

use crate::terminal::console::Console;
use crate::worker_role::WorkerRole;

/// How often progress is told where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Examines the files of some videos; gives an answer a video, in their order. After a request to stop the answers of the rest say
/// that they were not examined.
pub(super) fn all(
    videos: &[&Video],
    data: &DataConfig,
    depth: Depth,
    worker: WorkerRole,
    stop: &Stop,
    console: Console,
) -> Vec<Examined> {
    let progress = Progress::new(videos.len(), console);
    let next = AtomicUsize::new(0);
    let examine_some = || {
        let mut examined = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(video) = videos.get(index).filter(|_| !stop.asked()) else { return examined };
            let request = ProbeRequest { data: data.clone(), video: video.path.clone(), depth };
            let found = (worker.probe)(&request);
            progress.one_more(found.is_err());
            examined.push((index, found));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(videos.len());
    let mut answers: Vec<Examined> = videos.iter().map(|_| Err(lost())).collect();
    std::thread::scope(|scope| {
        let examining: Vec<_> = (0..threads).map(|_| scope.spawn(examine_some)).collect();
        // A panic there has been reported; the videos of that thread keep the answer that says so.
        for (index, found) in examining.into_iter().filter_map(|thread| thread.join().ok()).flatten() {
            answers[index] = found;
        }
    });
    progress.bar.finish_and_clear();
    answers
}

/// The answer for a video whose thread ended before it could give one.
fn lost() -> Unreadable {
    let reason = "was not examined: a thread of this program failed at it or at another video".to_owned();
    Unreadable { reason, hint: Some("report the message above, and check the videos one by one".into()) }
}

/// How far it is: a bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: ProgressBar,
    console: Console,
    videos: usize,
    state: Mutex<Told>,
}

struct Told {
    done: usize,
    damaged: usize,
    last: Instant,
}

impl Progress {
    fn new(videos: usize, console: Console) -> Self {
        let bar = console.bar("examining");
        bar.set_length(videos as u64);
        let told = Told { done: 0, damaged: 0, last: Instant::now() };
        Self { bar, console, videos, state: Mutex::new(told) }
    }

    fn one_more(&self, damaged: bool) {
        self.bar.inc(1);
        let Ok(mut told) = self.state.lock() else { return };
        told.done += 1;
        told.damaged += usize::from(damaged);
        if !self.console.live() && told.last.elapsed() >= LINE_EVERY {
            told.last = Instant::now();
            let Told { done, damaged, .. } = *told;
            self.console.say(&format!("examined {done} of {} videos, {damaged} damaged", self.videos));
        }
    }
}
