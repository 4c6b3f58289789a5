//! Work done ahead of time by a few threads, and handed over in order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longtake_shared::ids::Step;

/// How long a wait goes on before it is asked again whether the result is wanted.
const LOOK: Duration = Duration::from_millis(10);

/// Results of steps, of which some are always under way. Dropping it stops the threads after the clip they are at, and does
/// not wait for it.
#[derive(Debug)]
pub struct Prefetch<T> {
    shared: Arc<Shared<T>>,
}

/// Whether the work in hand is still wanted; asked between two pieces of work.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    stopped: Arc<AtomicBool>,
}

impl Wanted {
    /// False once nobody waits for the result.
    pub fn is_wanted(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }
}

/// The threads cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrefetchError {
    /// A thread panicked; its message is on the standard error stream.
    #[error("a thread that reads ahead panicked")]
    Panicked,
    /// No thread could be started.
    #[error("no thread could be started to read ahead")]
    NoThread,
}

impl longtake_shared::hint::Hint for PrefetchError {}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    wanted: Wanted,
    ahead: u64,
}

#[derive(Debug)]
struct State<T> {
    /// The next step that a thread takes up.
    untaken: u64,
    /// The next step that is handed over.
    undelivered: u64,
    end: u64,
    done: BTreeMap<u64, T>,
    panicked: bool,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Starts `threads` threads on `steps`, at most `ahead` of which are done or under way at any time (at least one).
    ///
    /// # Errors
    /// The operating system starts no thread.
    pub fn spawn(
        steps: Range<Step>,
        ahead: usize,
        threads: usize,
        work: impl Fn(Step, &Wanted) -> T + Send + Sync + 'static,
    ) -> Result<Self, PrefetchError> {
        let state = State {
            untaken: steps.start.0,
            undelivered: steps.start.0,
            end: steps.end.0,
            done: BTreeMap::new(),
            panicked: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            wanted: Wanted::default(),
            ahead: ahead.max(1) as u64,
        });
        let work = Arc::new(work);
        let started = (0..threads.clamp(1, ahead.max(1)))
            .filter_map(|index| {
                let (shared, work) = (Arc::clone(&shared), Arc::clone(&work));
                std::thread::Builder::new()
                    .name(format!("read-ahead-{index}"))
                    .spawn(move || shared.run(work.as_ref()))
                    .ok()
            })
            .count();
        if started == 0 {
            return Err(PrefetchError::NoThread);
        }
        Ok(Self { shared })
    }

    /// The result of the next step; nothing after the last.
    ///
    /// # Errors
    /// A thread panicked.
    #[allow(
        clippy::should_implement_trait,
        reason = "an error is not the end: `Iterator` could not tell them apart"
    )]
    pub fn next(&mut self) -> Result<Option<T>, PrefetchError> {
        self.next_while(|| true)
    }

    /// As [`Self::next`], but waits only as long as `wanted` says so; then there is nothing.
    ///
    /// # Errors
    /// A thread panicked.
    pub fn next_while(&mut self, wanted: impl Fn() -> bool) -> Result<Option<T>, PrefetchError> {
        let mut state = self.shared.lock();
        loop {
            let step = state.undelivered;
            if step >= state.end || !wanted() {
                return Ok(None);
            }
            if let Some(result) = state.done.remove(&step) {
                state.undelivered += 1;
                self.shared.changed.notify_all();
                return Ok(Some(result));
            }
            if state.panicked {
                return Err(PrefetchError::Panicked);
            }
            let (back, _) =
                self.shared.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner);
            state = back;
        }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, work: &impl Fn(Step, &Wanted) -> T) {
        let _guard = ReportPanic(self);
        while let Some(step) = self.take() {
            let result = work(Step(step), &self.wanted);
            self.lock().done.insert(step, result);
            self.changed.notify_all();
        }
    }

    /// The next step, once it is near enough; nothing after the last or when stopped.
    fn take(&self) -> Option<u64> {
        let mut state = self.lock();
        loop {
            if !self.wanted.is_wanted() || state.untaken >= state.end {
                return None;
            }
            if state.untaken < state.undelivered + self.ahead {
                state.untaken += 1;
                return Some(state.untaken - 1);
            }
            state = self.wait(state);
        }
    }
}

/// Tells whoever waits that a thread is gone.
struct ReportPanic<'a, T>(&'a Shared<T>);

impl<T> Drop for ReportPanic<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().panicked = true;
            self.0.changed.notify_all();
        }
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        self.shared.wanted.stopped.store(true, Ordering::Relaxed);
        // Under the lock, so that no thread misses it between its check and its wait.
        drop(self.shared.lock());
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    #[test]
    fn results_come_in_order_whoever_is_faster() {
        let (first_done, wait_for_first) = channel::<()>();
        let wait_for_first = Mutex::new(wait_for_first);
        let first_done = Mutex::new(first_done);
        // Step 4 cannot finish before step 5 has: the second thread overtakes the first.
        let mut prefetch = Prefetch::spawn(Step(4)..Step(9), 3, 2, move |step, _| {
            match step.0 {
                4 => wait_for_first.lock().unwrap().recv().unwrap(),
                5 => first_done.lock().unwrap().send(()).unwrap(),
                _ => {}
            }
            step.0
        })
        .unwrap();
        let mut results = Vec::new();
        while let Some(result) = prefetch.next().unwrap() {
            results.push(result);
        }
        assert_eq!(results, [4, 5, 6, 7, 8]);
    }

    #[test]
    fn no_more_steps_are_begun_than_asked_for() {
        let (begun, watch) = channel();
        let begun: Mutex<Sender<u64>> = Mutex::new(begun);
        let mut prefetch = Prefetch::spawn(Step(0)..Step(100), 2, 2, move |step, _| {
            begun.lock().unwrap().send(step.0).unwrap();
            step.0
        })
        .unwrap();
        assert_eq!(prefetch.next().unwrap(), Some(0));
        assert_eq!(prefetch.next().unwrap(), Some(1));
        drop(prefetch);
        assert!(watch.iter().all(|step| step < 4), "two were taken, so at most two more were begun");
    }

    #[test]
    fn dropping_ends_work_in_hand() {
        let (begun, watch) = channel();
        let begun = Mutex::new(begun);
        let prefetch = Prefetch::spawn(Step(0)..Step(9), 2, 1, move |_, wanted: &Wanted| {
            begun.lock().unwrap().send(()).unwrap();
            while wanted.is_wanted() {
                std::thread::yield_now();
            }
        })
        .unwrap();
        watch.recv().unwrap();
        drop(prefetch);
        assert!(watch.recv().is_err(), "no further step was begun");
    }

    #[test]
    fn a_panic_is_an_error_and_not_a_hang() {
        let mut prefetch = Prefetch::spawn(Step(0)..Step(9), 2, 1, |step, _| {
            assert!(step.0 < 1, "this test's own panic");
        })
        .unwrap();
        assert_eq!(prefetch.next(), Ok(Some(())));
        assert_eq!(prefetch.next(), Err(PrefetchError::Panicked));
    }
}
