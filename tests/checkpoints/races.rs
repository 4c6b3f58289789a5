//! Two coordinators at a time: every place in the chain has one winner, and who was replaced commits nothing more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longtake_shared::checkpoint::{CheckpointError, CheckpointStore};
use longtake_shared::ids::Incarnation;
use longtake_shared::objects::{Objects, RetryPolicy};
use object_store::memory::InMemory;

use crate::support::{count, put_parts, take_over};

/// One race: the old coordinator commits while a new one takes over.
async fn race(store: &CheckpointStore, number: u64) -> bool {
    let (old, mut zombie) = take_over(store, &format!("old {number}")).await.unwrap();
    let step = 10 * number;
    let manifest = put_parts(store, old, step).await.unwrap();
    let reference = store.put_manifest(&manifest).await.unwrap();
    let new = store.claim_incarnation(&format!("new {number}")).await.unwrap();
    let fencing = tokio::spawn({
        let store = store.clone();
        async move { store.fence(new).await }
    });
    let committing = tokio::spawn(async move {
        let outcome = zombie.append(&manifest, &reference, false).await;
        (outcome, zombie, manifest, reference)
    });
    let (outcome, mut zombie, manifest, reference) = committing.await.unwrap();
    let mut appender = fencing.await.unwrap().unwrap();
    let won = match outcome {
        Ok(_) => true,
        Err(CheckpointError::Fenced { by, .. }) if by == new => false,
        Err(error) => panic!("race {number}: {error}"),
    };
    let there = store.list().await.unwrap().iter().any(|committed| committed.step.0 == step);
    assert_eq!(there, won, "race {number}: what was acknowledged is there, and nothing else");
    let late = zombie.append(&manifest, &reference, false).await.unwrap_err();
    assert!(matches!(late, CheckpointError::Fenced { .. }), "race {number}: {late}");
    let manifest = put_parts(store, new, step + 1).await.unwrap();
    let reference = store.put_manifest(&manifest).await.unwrap();
    appender.append(&manifest, &reference, false).await.unwrap();
    let chain = store.chain().await.unwrap();
    assert!(chain.damage.is_empty(), "race {number}: {:?}", chain.damage);
    assert_eq!(chain.checkpoints().next_back().map(|committed| committed.step.0), Some(step + 1));
    won
}

async fn races(objects: impl Fn(u64) -> Objects, races: u64) {
    let mut won = 0;
    for number in 0..races {
        // A chain of its own from time to time: reading a long one is not what is tested.
        let store = CheckpointStore::new(objects(number / 20));
        won += u64::from(race(&store, number).await);
    }
    println!("{races} races: the old coordinator was first in {won}, the new one in {}", races - won);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_coordinators_one_wins_each_place_in_the_chain() {
    let memory = Objects::new(Arc::new(InMemory::new()), "");
    races(|number| memory.below(&number.to_string()), 1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_coordinators_on_a_folder_one_wins_each_place_in_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::open(&folder.path().display().to_string()).unwrap();
    races(|number| objects.below(&number.to_string()), count(100, 1000) as u64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incarnation_is_won_by_one_of_many() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::open(&folder.path().display().to_string()).unwrap();
    let retry = RetryPolicy { first: Duration::ZERO, ..RetryPolicy::default() };
    let store = CheckpointStore::new(objects.with_retry(retry));
    let claims = (0..count(64, 512)).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { store.claim_incarnation(&format!("owner {number}")).await.unwrap() })
    });
    let claims: Vec<_> = claims.collect();
    let count = claims.len();
    let mut won = BTreeSet::new();
    for claim in claims {
        won.insert(claim.await.unwrap());
    }
    assert_eq!(won, (1..=count as u64).map(Incarnation).collect());
}
