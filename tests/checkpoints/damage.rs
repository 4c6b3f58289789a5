//! Bits flip and objects are cut short, anywhere in the store: survived by an older checkpoint, or refused; never silent.

use std::sync::Arc;

use bytes::Bytes;
use longtake_shared::checkpoint::CheckpointStore;
use longtake_shared::ids::Incarnation;
use longtake_shared::objects::Objects;
use longtake_shared::random::Key;
use object_store::memory::InMemory;
use rand::RngExt as _;

use crate::support::{count, load_newest, save, take_over};

#[tokio::test]
async fn no_flipped_bit_and_no_cut_is_loaded_silently() {
    let damages = count(1000, 20_000);
    let objects = Objects::new(Arc::new(InMemory::new()), "run");
    let store = CheckpointStore::new(objects.clone());
    let (incarnation, mut appender) = take_over(&store, "owner").await.unwrap();
    assert_eq!(incarnation, Incarnation(1));
    for step in [10, 20] {
        save(&store, &mut appender, incarnation, step).await.unwrap();
    }
    let mut names = Vec::new();
    for folder in ["parts", "checkpoints", "commits"] {
        names.extend(objects.list(folder).await.unwrap());
    }
    let mut rng = Key::root(damages as u64).rng();
    let mut outcomes = std::collections::BTreeMap::new();
    for number in 0..damages {
        let (name, size) = &names[rng.random_range(0..names.len())];
        let whole = objects.get(name).await.unwrap();
        let mut bytes = whole.to_vec();
        let at = rng.random_range(0..*size as usize);
        if number % 4 == 0 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << rng.random_range(0..8);
        }
        objects.put(name, Bytes::from(bytes)).await.unwrap();
        // What it loads is compared with what was saved there.
        let (newest, passed_over) = load_newest(&store).await.unwrap();
        assert!(newest == Some(20) || passed_over > 0, "damage {number} of `{name}` at {at} is silent");
        *outcomes.entry(newest).or_insert(0) += 1;
        objects.put(name, whole).await.unwrap();
    }
    assert_eq!(load_newest(&store).await.unwrap(), (Some(20), 0));
    println!("{damages} damages, by the step that was loaded: {outcomes:?}; none was silent");
}
