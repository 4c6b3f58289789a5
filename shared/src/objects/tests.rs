//! Objects are written whole or not at all, and retried only where that can help.

use std::time::Duration;

use object_store::memory::InMemory;

use super::faulty::{Fault, FaultyStore};
use super::*;

fn quick(store: Arc<dyn ObjectStore>) -> Objects {
    let retry = RetryPolicy { attempts: 3, first: Duration::ZERO, factor: 1.0, longest: Duration::ZERO };
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
    for (url, feature) in [("s3://bucket/run", "aws"), ("gs://bucket", "gcp"), ("az://container/x", "azure")]
    {
        let message = Objects::open(url).unwrap_err().to_string();
        assert!(message.contains(url) && message.contains(&format!("feature `{feature}`")), "{message}");
    }
    for url in ["", "ftp://host/x", "file://host/x", "s3:/ /"] {
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
