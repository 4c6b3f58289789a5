//! The suite that every implementation of `Collective` passes. It panics with what is wrong.

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use longtake_shared::ids::Rank;
use longtake_shared::random::Key;
use rand::Rng as _;

use super::{Aborter, Collective, CollectiveError};

/// How long a call may take to begin to wait, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// One collective a rank, of a fresh world.
pub type World = Vec<Box<dyn Collective>>;

/// Runs everything in worlds of these sizes.
///
/// # Panics
/// Where the implementation does not conform.
pub fn check(worlds: &[usize], make: &dyn Fn(usize) -> World) {
    for &world in worlds {
        ranks_are_numbered(&make(world));
        sums_are_right_and_alike(&|| make(world));
        broadcasts_arrive(make(world));
        messages_reach_whom_they_are_for(make(world));
        a_barrier_waits_for_all(make(world));
        for kind in Kind::ALL {
            an_abort_ends_pending_and_later_calls(make(world), kind);
        }
        if world > 1 {
            a_lost_peer_is_an_error(make(world));
            lengths_that_differ_are_refused(make(world));
        }
    }
}

/// Runs `work` on every rank at once; the results in the order of ranks.
fn on_all<R: Send>(world: World, work: impl Fn(Box<dyn Collective>) -> R + Sync) -> Vec<R> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> =
            world.into_iter().map(|collective| scope.spawn(move || work(collective))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a rank's thread ends without a panic"))
            .collect()
    })
}

fn ranks_are_numbered(world: &[Box<dyn Collective>]) {
    let size = world.len();
    let generation = world[0].generation();
    for (rank, collective) in world.iter().enumerate() {
        assert_eq!((collective.rank().index(), collective.world()), (rank, size));
        assert_eq!(collective.generation(), generation);
    }
}

/// What rank `rank` brings to a sum of `length` values.
fn addends(rank: usize, length: usize) -> Vec<f32> {
    let mut rng = Key::root(rank as u64).child("addends", length as u64).rng();
    (0..length).map(|_| rng.next_u32() as f32 / 1e9 - 2.0).collect()
}

fn sums_are_right_and_alike(make: &dyn Fn() -> World) {
    const LENGTHS: [usize; 6] = [0, 1, 3, 1000, 5003, 1_000_003];
    let run = || {
        on_all(make(), |mut collective| {
            LENGTHS.map(|length| {
                let mut values = addends(collective.rank().index(), length);
                collective.all_reduce(&mut values).expect("an all-reduce succeeds");
                values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            })
        })
    };
    let (first, second) = (run(), run());
    for sums in first.iter().chain(&second) {
        assert!(sums == &first[0], "all ranks and all runs have the same bits");
    }
    for (length, sums) in LENGTHS.into_iter().zip(&first[0]) {
        let all: Vec<Vec<f32>> = (0..first.len()).map(|rank| addends(rank, length)).collect();
        for (index, sum) in sums.iter().enumerate() {
            let expected: f64 = all.iter().map(|addends| f64::from(addends[index])).sum();
            let error = (f64::from(f32::from_bits(*sum)) - expected).abs();
            assert!(error < 1e-5, "value {index} of {length} is off by {error}");
        }
    }
}

fn broadcasts_arrive(world: World) {
    const LENGTHS: [usize; 4] = [0, 1, 70_000, 1_000_003];
    let size = world.len();
    let bytes = |root: usize, length: usize| -> Vec<u8> {
        let mut bytes = vec![0; length];
        Key::root(root as u64).rng().fill_bytes(&mut bytes);
        bytes
    };
    on_all(world, |mut collective| {
        for root in 0..size {
            for length in LENGTHS {
                let own = collective.rank().index() == root;
                let mut received = if own { bytes(root, length) } else { vec![1, 2, 3] };
                collective.broadcast(Rank(root as u32), &mut received).expect("a broadcast succeeds");
                assert!(received == bytes(root, length), "{length} bytes arrive from rank {root}");
            }
        }
        let outside = collective.broadcast(Rank(size as u32), &mut Vec::new());
        assert!(matches!(outside, Err(CollectiveError::NoSuchRank { .. })), "{outside:?}");
    });
}

fn messages_reach_whom_they_are_for(world: World) {
    const LENGTHS: [usize; 4] = [0, 1, 70_000, 1_000_003];
    let size = world.len();
    let bytes = |from: usize, to: usize, length: usize| -> Vec<u8> {
        let mut bytes = vec![0; length + from];
        Key::root(from as u64).child("to", to as u64).rng().fill_bytes(&mut bytes);
        bytes
    };
    on_all(world, |mut collective| {
        let own = collective.rank().index();
        for length in LENGTHS {
            // To each further rank round the ring in turn, and for once to all at once.
            for distances in (1..size).map(|distance| vec![distance]).chain([(1..size).collect()]) {
                let to = distances.iter().map(|distance| (own + distance) % size);
                let send: Vec<_> = to.map(|to| (Rank(to as u32), bytes(own, to, length))).collect();
                let from = distances.iter().map(|distance| (own + size - distance) % size);
                let receive: Vec<_> = from.map(|from| Rank(from as u32)).collect();
                let received = collective.exchange(&send, &receive).expect("an exchange succeeds");
                let expected = receive.iter().map(|from| bytes(from.index(), own, length));
                assert!(received == expected.collect::<Vec<_>>(), "{length} bytes arrive over {distances:?}");
            }
            // From the last rank to the first alone; the others have nothing to do with it.
            let last = size - 1;
            let (mut send, mut receive) = (Vec::new(), Vec::new());
            if last > 0 && own == last {
                send.push((Rank(0), bytes(last, 0, length)));
            }
            if last > 0 && own == 0 {
                receive.push(Rank(last as u32));
            }
            let received = collective.exchange(&send, &receive).expect("an exchange succeeds");
            assert!(received.iter().all(|received| *received == bytes(last, 0, length)));
            assert_eq!(received.len(), receive.len());
        }
        for peer in [own, size] {
            let nobody = collective.exchange(&[], &[Rank(peer as u32)]);
            assert!(matches!(nobody, Err(CollectiveError::NoSuchRank { .. })), "{nobody:?}");
        }
        collective.barrier().expect("a mistake of the caller breaks nothing");
    });
}

fn a_barrier_waits_for_all(mut world: World) {
    let Some(mut last) = world.pop() else { return };
    let (passed, watch) = channel();
    thread::scope(|scope| {
        for mut collective in world {
            let passed = passed.clone();
            scope.spawn(move || {
                collective.barrier().expect("a barrier succeeds");
                passed.send(()).expect("the test is watching");
            });
        }
        drop(passed);
        let early = watch.recv_timeout(Duration::from_millis(30));
        assert!(early.is_err(), "nobody passes before the last rank comes");
        last.barrier().expect("a barrier succeeds");
        while watch.recv().is_ok() {}
    });
}

/// The calls that can be pending.
#[derive(Debug, Clone, Copy)]
enum Kind {
    AllReduce,
    Broadcast,
    Exchange,
    Barrier,
}

impl Kind {
    const ALL: [Self; 4] = [Self::AllReduce, Self::Broadcast, Self::Exchange, Self::Barrier];

    /// A call that does not return before the last rank joins it.
    fn call(self, collective: &mut dyn Collective) -> Result<(), CollectiveError> {
        let last = Rank(collective.world() as u32 - 1);
        match self {
            Self::AllReduce => collective.all_reduce(&mut vec![1.0; 100_000]),
            Self::Broadcast => collective.broadcast(last, &mut Vec::new()),
            Self::Exchange if collective.rank() == last => collective.exchange(&[], &[]).map(drop),
            Self::Exchange => collective.exchange(&[], &[last]).map(drop),
            Self::Barrier => collective.barrier(),
        }
    }
}

/// The last rank never joins the call, so those of the others wait. In a world of one nothing is ever pending.
fn an_abort_ends_pending_and_later_calls(mut world: World, kind: Kind) {
    let expected = Err(CollectiveError::Aborted { reason: "a test says so".into() });
    let absent = (world.len() > 1).then(|| world.pop());
    let aborters: Vec<_> = world.iter().map(Collective::aborter).collect();
    let waits: Vec<u64> = aborters.iter().map(Aborter::waits).collect();
    thread::scope(|scope| {
        let pending: Vec<_> = world
            .into_iter()
            .map(|mut collective| {
                scope.spawn(move || {
                    let mut result = kind.call(collective.as_mut());
                    while collective.world() == 1 && result.is_ok() {
                        result = kind.call(collective.as_mut());
                    }
                    let returned = Instant::now();
                    let later = collective.barrier();
                    (result, returned, later)
                })
            })
            .collect();
        if absent.is_some() {
            for (rank, (aborter, before)) in aborters.iter().zip(&waits).enumerate() {
                let begun = Instant::now();
                while aborter.waits() == *before {
                    assert!(begun.elapsed() < PATIENCE, "rank {rank} does not wait in {kind:?}");
                    thread::yield_now();
                }
            }
        }
        let aborted = Instant::now();
        for aborter in &aborters {
            aborter.abort("a test says so");
            aborter.abort("a later reason does not count");
        }
        for (rank, pending) in pending.into_iter().enumerate() {
            let (result, returned, later) = pending.join().expect("a rank's thread ends without a panic");
            // Whoever is aborted later may first see that one who was aborted before has left.
            let left = matches!(result, Err(CollectiveError::PeerLost { .. })) && rank > 0;
            assert!(result == expected || left, "rank {rank} in {kind:?}: {result:?}");
            assert_eq!(later, result, "rank {rank} after {kind:?}");
            let took = returned.checked_duration_since(aborted);
            let took = took.unwrap_or_else(|| panic!("rank {rank} did not wait in {kind:?}"));
            assert!(took < Duration::from_millis(100), "the pending {kind:?} returned after {took:?}");
        }
    });
    drop(absent);
}

fn a_lost_peer_is_an_error(mut world: World) {
    drop(world.pop());
    for length in [3, 100_000] {
        let errors = on_all(std::mem::take(&mut world), |mut collective| {
            collective.all_reduce(&mut vec![1.0; length]).expect_err("a rank is gone")
        });
        for error in errors {
            assert!(matches!(error, CollectiveError::PeerLost { .. }), "{error}");
        }
    }
}

fn lengths_that_differ_are_refused(world: World) {
    let errors = on_all(world, |mut collective| {
        let mut values = vec![1.0; if collective.rank() == Rank(0) { 3 } else { 4 }];
        collective.all_reduce(&mut values).expect_err("rank 0 brings another length")
    });
    let mismatch = errors.iter().any(|error| matches!(error, CollectiveError::Mismatch { .. }));
    assert!(mismatch, "some rank says what is wrong: {errors:?}");
}
