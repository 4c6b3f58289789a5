//! What checkpoints ask of a store, asked of every store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use longtake_shared::checkpoint::{CheckpointError, CheckpointStore, Retention};
use longtake_shared::ids::Incarnation;
use longtake_shared::objects::{Created, ObjectError, Objects};
use object_store::memory::InMemory;

use crate::proxy::Proxy;
use crate::servers::{Kind, Server};
use crate::support::{bytes_of, load_newest, put_parts, save, take_over};

async fn conforms(objects: Objects) {
    objects_come_back(&objects.below("objects")).await;
    one_creation_wins(&objects.below("races")).await;
    checkpoints_are_kept(&CheckpointStore::new(objects.below("run"))).await;
    a_zombie_is_fenced(&CheckpointStore::new(objects.below("fenced"))).await;
}

async fn objects_come_back(objects: &Objects) {
    assert_eq!(objects.list("parts").await.unwrap(), []);
    let contents = [("parts/1", 0), ("parts/2", 1), ("parts/more/3", 300_000), ("other/4", 10)];
    for (name, size) in contents {
        objects.put(name, bytes_of(name, 0, size)).await.unwrap();
    }
    for (name, size) in contents {
        let (bytes, hash) = objects.get_hashed(name).await.unwrap();
        assert_eq!(bytes, bytes_of(name, 0, size), "{name}");
        assert_eq!((hash, size as u64), objects.hash(name).await.unwrap(), "{name}");
        assert_eq!(objects.size(name).await.unwrap(), Some(size as u64), "{name}");
    }
    let listed: Vec<(String, u64)> =
        contents[..3].iter().map(|(name, size)| ((*name).to_owned(), *size as u64)).collect();
    assert_eq!(objects.list("parts").await.unwrap(), listed);

    objects.put("parts/2", Bytes::from_static(b"anew")).await.unwrap();
    assert_eq!(objects.get("parts/2").await.unwrap().as_ref(), b"anew");
    assert_eq!(objects.create("parts/2", Bytes::from_static(b"late")).await.unwrap(), Created::Exists);
    assert_eq!(objects.get("parts/2").await.unwrap().as_ref(), b"anew");
    for _ in 0..2 {
        objects.delete("parts/2").await.unwrap();
    }
    assert_eq!(objects.size("parts/2").await.unwrap(), None);
    let error = objects.get("parts/2").await.unwrap_err();
    assert!(matches!(error, ObjectError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains(&objects.full_name("parts/2")), "{error}");
}

async fn one_creation_wins(objects: &Objects) {
    for round in 0..20 {
        let name = format!("{round:02}");
        let creations: Vec<_> = (0..6u8)
            .map(|rival| {
                let (objects, name) = (objects.clone(), name.clone());
                tokio::spawn(
                    async move { objects.create(&name, Bytes::from(vec![rival; 10])).await.unwrap() },
                )
            })
            .collect();
        let mut winners = Vec::new();
        for (rival, creation) in (0..6u8).zip(creations) {
            if creation.await.unwrap() == Created::New {
                winners.push(vec![rival; 10]);
            }
        }
        assert_eq!(winners, [objects.get(&name).await.unwrap().to_vec()], "round {round}");
    }
}

async fn checkpoints_are_kept(store: &CheckpointStore) {
    assert_eq!(load_newest(store).await.unwrap(), (None, 0));
    let (incarnation, mut appender) = take_over(store, "first").await.unwrap();
    assert_eq!(incarnation, Incarnation(1));
    for step in [1, 2, 3] {
        save(store, &mut appender, incarnation, step).await.unwrap();
        assert_eq!(load_newest(store).await.unwrap(), (Some(step), 0));
    }
    let orphan = store.put_part(bytes_of("orphan", 0, 100)).await.unwrap();
    let now = SystemTime::now();
    let reading = store.begin_reading("reader", now).await.unwrap();
    let spared = appender.sweep(Retention { newest: 2 }, &BTreeSet::new(), now).await.unwrap();
    assert_eq!((spared.manifests, spared.parts, spared.spared_for_readers), (1, 0, true));
    reading.end().await.unwrap();
    let swept = appender.sweep(Retention { newest: 2 }, &BTreeSet::new(), now).await.unwrap();
    assert_eq!((swept.manifests, swept.parts), (0, 4), "three parts of step 1, and the orphan");
    assert!(store.get_part(&orphan).await.is_err());
    let steps: Vec<u64> = store.list().await.unwrap().iter().map(|committed| committed.step.0).collect();
    assert_eq!(steps, [2, 3]);
    assert_eq!(load_newest(store).await.unwrap(), (Some(3), 0));
}

async fn a_zombie_is_fenced(store: &CheckpointStore) {
    let (old, mut zombie) = take_over(store, "old").await.unwrap();
    save(store, &mut zombie, old, 1).await.unwrap();
    let (new, mut appender) = take_over(store, "new").await.unwrap();
    assert!(new > old);
    let late = put_parts(store, old, 2).await.unwrap();
    let reference = store.put_manifest(&late).await.unwrap();
    let error = zombie.append(&late, &reference, false).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Fenced { by, .. } if by == new), "{error}");
    let swept = zombie.sweep(Retention { newest: 1 }, &BTreeSet::new(), SystemTime::now()).await;
    assert!(matches!(swept, Err(CheckpointError::Fenced { .. })), "{swept:?}");
    save(store, &mut appender, new, 3).await.unwrap();
    assert_eq!(load_newest(store).await.unwrap(), (Some(3), 0));
    assert!(store.chain().await.unwrap().damage.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_conforms() {
    conforms(Objects::new(Arc::new(InMemory::new()), "")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conforms(Objects::open(&format!("file://{}/new/folder", folder.path().display())).unwrap()).await;
}

async fn a_server_conforms(kind: Kind) {
    let Some(server) = Server::start(kind).await else { return };
    // It makes up for what two of the servers lack of the stores that they stand for.
    let proxy = Proxy::start(&server).await;
    conforms(Objects::open_with(&server.url("some/folder"), &server.variables(proxy.port)).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_conforms() {
    a_server_conforms(Kind::S3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azure_conforms() {
    a_server_conforms(Kind::Azure).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn google_cloud_storage_conforms() {
    a_server_conforms(Kind::Gcs).await;
}
