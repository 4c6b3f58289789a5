//! Objects are written whole or not at all, and retried only where that can help.

use std::time::Duration;

use object_store::memory::InMemory;

use super::faulty::{Fault, FaultyStore};
use super::*;

fn quick(store: Arc<dyn ObjectStore>) -> Objects {
    let retry = RetryPolicy::without_pauses(3);
    Objects::new(store, "run").with_retry(retry)
}

#[tokio::test]
async fn objects_come_back_as_they_were_put() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/new/folder", folder.path().display());
    for objects in [Objects::open(&url).unwrap().below("a"), Objects::open("memory:///").unwrap().below("a")]
    {
        objects.put("parts/1", Bytes::from_static(b"one")).await.unwrap();
        objects.put("parts/2", Bytes::new()).await.unwrap();
        assert_eq!(objects.create("parts/1", Bytes::from_static(b"other")).await.unwrap(), Created::Exists);
        assert_eq!(objects.create("parts/3", Bytes::from_static(b"three")).await.unwrap(), Created::New);
        let (bytes, hash) = objects.get_hashed("parts/1").await.unwrap();
        assert_eq!((bytes.as_ref(), hash), (b"one".as_ref(), blake3::hash(b"one")));
        assert_eq!(
            objects.list("parts").await.unwrap(),
            [("parts/1".to_owned(), 3), ("parts/2".to_owned(), 0), ("parts/3".to_owned(), 5)]
        );
        objects.delete("parts/2").await.unwrap();
        objects.delete("parts/2").await.unwrap();
        assert_eq!(objects.size("parts/2").await.unwrap(), None);
        assert_eq!(objects.size("parts/3").await.unwrap(), Some(5));
        let error = objects.get("parts/2").await.unwrap_err();
        assert_eq!(error.to_string(), "object `a/parts/2` does not exist");
    }
}

#[test]
fn stores_that_are_not_built_in_are_refused_by_name() {
    for (url, feature, built) in [
        ("s3://bucket/run", "s3", cfg!(feature = "s3")),
        ("gs://bucket", "gcs", cfg!(feature = "gcs")),
        ("az://container/x", "azure", cfg!(feature = "azure")),
    ] {
        match Objects::open_with(url, &[]) {
            Ok(objects) => assert!(built && objects.full_name("x").starts_with(url), "{objects:?}"),
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains(url) && error.hint().is_some(), "{message}");
                assert_eq!(message.contains(&format!("feature `{feature}`")), !built, "{message}");
            }
        }
    }
    for url in ["", "ftp://host/x", "file://host/x", "s3:/ /", "s3:///x"] {
        if let Err(error) = Objects::open(url) {
            assert!(error.hint().is_some(), "{url}");
        } else {
            assert!(!url.contains("://"), "`{url}` was accepted");
        }
    }
}

#[tokio::test]
async fn passing_failures_are_retried_and_lasting_ones_reported() {
    let store = FaultyStore::new(Arc::new(InMemory::new())).at(0, Fault::Fail).at(1, Fault::Torn);
    let objects = quick(Arc::new(store));
    objects.put("x", Bytes::from_static(b"whole")).await.unwrap();
    assert_eq!(objects.get("x").await.unwrap().as_ref(), b"whole");

    let store = Arc::new(FaultyStore::new(Arc::new(InMemory::new())).from(0.., Fault::Fail));
    let objects = quick(Arc::clone(&store) as Arc<dyn ObjectStore>);
    let error = objects.put("x", Bytes::from_static(b"whole")).await.unwrap_err();
    assert_eq!(error.to_string(), "could not write `run/x` in 3 attempts");
    assert_eq!(store.writes(), 3);
}

#[tokio::test]
async fn a_full_disk_is_one_sentence_and_not_retried() {
    let store = Arc::new(FaultyStore::new(Arc::new(InMemory::new())).from(0.., Fault::Full));
    let objects = quick(Arc::clone(&store) as Arc<dyn ObjectStore>);
    let error = objects.put("x", Bytes::from_static(b"whole")).await.unwrap_err();
    assert_eq!(error.to_string(), "no space is left to write `run/x` (5 bytes)");
    assert!(error.hint().unwrap().contains("nothing was half-written"));
    assert_eq!(store.writes(), 1);
    assert_eq!(objects.size("x").await.unwrap(), None);
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_still_ours() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let objects = quick(Arc::new(FaultyStore::new(Arc::clone(&inner)).at(0, Fault::Unacknowledged)));
    assert_eq!(objects.create("x", Bytes::from_static(b"mine")).await.unwrap(), Created::New);

    let rival = quick(Arc::new(FaultyStore::new(inner).at(0, Fault::Fail)));
    assert_eq!(rival.create("x", Bytes::from_static(b"theirs")).await.unwrap(), Created::Exists);
}

#[tokio::test]
async fn a_slow_store_is_waited_for() {
    let store = FaultyStore::new(Arc::new(InMemory::new())).at(0, Fault::Slow(Duration::from_millis(1)));
    let objects = quick(Arc::new(store));
    objects.put("x", Bytes::from_static(b"whole")).await.unwrap();
    assert_eq!(objects.get("x").await.unwrap().as_ref(), b"whole");
}

#[tokio::test]
async fn a_store_that_stalls_is_given_up_and_tried_again() {
    let never = Fault::Slow(Duration::from_hours(1));
    let store = Arc::new(FaultyStore::new(Arc::new(InMemory::new())).at(0, never));
    let impatient = RetryPolicy { patience: Duration::from_millis(20), ..RetryPolicy::without_pauses(2) };
    let objects = quick(Arc::clone(&store) as Arc<dyn ObjectStore>).with_retry(impatient);
    objects.put("x", Bytes::from_static(b"whole")).await.unwrap();
    assert_eq!(store.writes(), 2);

    let store = FaultyStore::new(Arc::new(InMemory::new())).from(0.., never);
    let objects = quick(Arc::new(store)).with_retry(impatient);
    let failure = crate::hint::Failure::from(objects.put("x", Bytes::new()).await.unwrap_err());
    assert!(failure.message.starts_with("could not write `run/x` in 2 attempts"), "{}", failure.message);
    assert!(failure.message.ends_with("no answer for 0.02 s"), "{}", failure.message);
}
