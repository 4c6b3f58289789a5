//! The ring on one machine: conformance, and who may join.

use std::thread;
use std::time::{Duration, Instant};

use longtake_shared::ids::RunId;

use super::*;
use crate::collective::conformance;

fn listen() -> (RingListener, std::net::SocketAddr) {
    RingListener::bind("127.0.0.1:0".parse().unwrap()).unwrap()
}

fn member(run: &str, generation: u64, rank: usize) -> Membership {
    Membership { run: RunId(run.into()), generation: Generation(generation), rank: Rank(rank as u32) }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[test]
fn a_ring_conforms() {
    conformance::check(&[1, 2, 3, 4, 5], &|world| {
        loopback(world).unwrap().into_iter().map(|ring| Box::new(ring) as Box<dyn Collective>).collect()
    });
}

#[test]
fn a_rank_that_does_not_come_is_named() {
    let ((listener, own), (_other, elsewhere)) = (listen(), listen());
    let deadline = Instant::now() + Duration::from_millis(50);
    let first = listener.connect(&member("run", 1, 0), &[own, elsewhere], deadline, Aborter::new().unwrap());
    assert_eq!(
        first.unwrap_err(),
        CollectiveError::NotFormed { missing: Rank(1), generation: Generation(1) }
    );
}

#[test]
fn forming_can_be_aborted() {
    let ((listener, own), (_other, elsewhere)) = (listen(), listen());
    for rank in [0, 1] {
        let aborter = Aborter::new().unwrap();
        let peers = if rank == 0 { [own, elsewhere] } else { [elsewhere, own] };
        let result = thread::scope(|scope| {
            let forming =
                scope.spawn(|| listener.connect(&member("run", 1, rank), &peers, soon(), aborter.clone()));
            aborter.abort("the generation changed");
            forming.join().unwrap()
        });
        assert_eq!(result.unwrap_err(), CollectiveError::Aborted { reason: "the generation changed".into() });
    }
}

#[test]
fn a_peer_of_an_older_generation_learns_that_it_is_over_and_does_not_disturb() {
    let ((first, a), (second, b), (stale, _)) = (listen(), listen(), listen());
    let peers = [a, b];
    thread::scope(|scope| {
        let lower =
            scope.spawn(|| first.connect(&member("run", 7, 0), &peers, soon(), Aborter::new().unwrap()));
        let old = stale.connect(&member("run", 6, 1), &peers, soon(), Aborter::new().unwrap());
        let (theirs, ours) = (Generation(7), Generation(6));
        assert_eq!(old.unwrap_err(), CollectiveError::Superseded { rank: Rank(0), theirs, ours });
        let upper = second.connect(&member("run", 7, 1), &peers, soon(), Aborter::new().unwrap());
        assert_eq!(upper.unwrap().world(), 2);
        assert_eq!(lower.join().unwrap().unwrap().generation(), Generation(7));
    });
}

#[test]
fn a_peer_of_another_run_or_with_another_protocol_is_refused() {
    use std::io::Write as _;

    let ((first, a), (second, b), (stranger, _)) = (listen(), listen(), listen());
    let peers = [a, b];
    thread::scope(|scope| {
        let lower =
            scope.spawn(|| first.connect(&member("run", 1, 0), &peers, soon(), Aborter::new().unwrap()));
        let mut noise = std::net::TcpStream::connect(a).unwrap();
        noise
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a scanner of ports\r\n\r\n")
            .unwrap();
        let soon_over = Instant::now() + Duration::from_millis(60);
        let other =
            stranger.connect(&member("another run", 1, 1), &peers, soon_over, Aborter::new().unwrap());
        assert!(matches!(other.unwrap_err(), CollectiveError::NotFormed { missing: Rank(0), .. }));
        second.connect(&member("run", 1, 1), &peers, soon(), Aborter::new().unwrap()).unwrap();
        lower.join().unwrap().unwrap();
    });
}

#[test]
fn an_error_is_final() {
    let mut rings = loopback(2).unwrap();
    let mut first = rings.remove(0);
    drop(rings);
    let error = first.barrier().unwrap_err();
    assert!(matches!(error, CollectiveError::PeerLost { rank: Rank(1), .. }), "{error}");
    assert_eq!(first.all_reduce(&mut [1.0]), Err(error));
}
