//! Answers that fail, come late, come twice or never, between a checkpoint and a real store: retried by the one policy, never
//! a second commit, never half a state, and a sentence that names the object when nothing helps.

use std::time::Duration;

use bytes::Bytes;
use longtake_shared::checkpoint::{CheckpointError, CheckpointStore};
use longtake_shared::hint::{Failure, Hint as _};
use longtake_shared::objects::{Created, ObjectError, Objects, RetryPolicy};

use crate::proxy::{Mishap, Proxy};
use crate::servers::{Kind, Server};
use crate::support::{bytes_of, load_newest, put_parts, save, take_over};

const ATTEMPTS: u32 = 4;

struct Lab {
    server: Server,
    proxy: Proxy,
    objects: Objects,
}

impl Lab {
    async fn open(kind: Kind) -> Option<Self> {
        let server = Server::start(kind).await?;
        let proxy = Proxy::start(&server).await;
        let objects = Objects::open_with(&server.url("run"), &server.variables(proxy.port)).unwrap();
        let objects = objects.with_retry(RetryPolicy::without_pauses(ATTEMPTS));
        Some(Self { server, proxy, objects })
    }

    /// Everything that was planned has happened, in so many requests.
    fn done_in(&self, method: &str, requests: usize) {
        assert!(self.proxy.is_done());
        let seen = self.proxy.seen();
        let of_method = seen.iter().filter(|request| request.method == method).count();
        assert_eq!(of_method, requests, "{method}: {seen:?}");
    }
}

/// Failures that pass: the store is asked again.
async fn passing_failures(lab: &Lab) {
    let Lab { proxy, objects, .. } = lab;
    let content = bytes_of("content", 0, 200_000);
    let slow = Mishap::Slowly(Duration::from_millis(50), 503);
    proxy.next("PUT", &[Mishap::Answer(500, "oops"), slow, Mishap::Answer(429, "")]);
    objects.put("passing", content.clone()).await.unwrap();
    lab.done_in("PUT", 4);

    proxy.next("GET", &[Mishap::CutShort, Mishap::Answer(503, "SlowDown"), Mishap::CutShort]);
    assert_eq!(objects.get("passing").await.unwrap(), content);
    lab.done_in("GET", 4);

    let impatient = RetryPolicy { patience: Duration::from_secs(2), ..RetryPolicy::without_pauses(ATTEMPTS) };
    proxy.next("GET", &[Mishap::Stall]);
    assert_eq!(objects.clone().with_retry(impatient).get("passing").await.unwrap(), content);
    assert!(proxy.is_done());
    proxy.next("PUT", &[Mishap::Stall]);
    objects.clone().with_retry(impatient).put("stalled", content.clone()).await.unwrap();
    assert!(proxy.is_done());
    assert_eq!(objects.get("stalled").await.unwrap(), content);
    proxy.seen();
}

/// Creations whose answers say something else than what has happened.
async fn misleading_answers(lab: &Lab) {
    let Lab { proxy, objects, .. } = lab;
    let ours = Bytes::from_static(b"ours");
    // Nothing exists, whatever the answer says: a conflict with a write that came to nothing.
    for (name, status) in [("conflict", 409), ("condition", 412)] {
        proxy.next("PUT", &[Mishap::Answer(status, "")]);
        assert_eq!(objects.create(name, ours.clone()).await.unwrap(), Created::New, "{status}");
        assert_eq!(objects.get(name).await.unwrap(), ours);
        lab.done_in("PUT", 2);
    }
    // It took effect, whatever the answer says.
    for (name, mishap) in [("unanswered", Mishap::DoneUnanswered), ("failed", Mishap::DoneBut(500))] {
        proxy.next("PUT", &[mishap]);
        assert_eq!(objects.create(name, ours.clone()).await.unwrap(), Created::New, "{mishap:?}");
        let theirs = Bytes::from_static(b"theirs");
        proxy.next("PUT", &[Mishap::Answer(503, "")]);
        assert_eq!(objects.create(name, theirs).await.unwrap(), Created::Exists, "{mishap:?}");
        assert_eq!(objects.get(name).await.unwrap(), ours);
    }
    proxy.seen();
}

/// Failures that last: one sentence, what to do, and as many attempts as make sense.
async fn lasting_failures(lab: &Lab) {
    let Lab { proxy, objects, server } = lab;
    let name = objects.full_name("lasting");
    assert_eq!(name, format!("{}/lasting", server.url("run")));
    for status in [401, 403] {
        proxy.always(Some(("PUT", Mishap::Answer(status, "ExpiredToken"))));
        let error = objects.put("lasting", Bytes::new()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("access to `{name}` is denied"));
        assert!(error.hint().unwrap().contains("credentials"), "{error}");
        lab.done_in("PUT", 1);
        proxy.always(Some(("GET", Mishap::Answer(status, ""))));
        let error = objects.list("lasting").await.unwrap_err();
        assert_eq!(error.to_string(), format!("access to `{name}` is denied"));
        lab.done_in("GET", 1);
    }
    proxy.always(Some(("PUT", Mishap::Answer(400, "<Code>ExpiredToken</Code>"))));
    let error = objects.put("lasting", Bytes::new()).await.unwrap_err();
    assert!(matches!(error, ObjectError::Denied { .. }), "{error}");
    lab.done_in("PUT", 1);

    proxy.always(Some(("PUT", Mishap::Answer(400, "<Code>BadDigest</Code>"))));
    let error = objects.put("lasting", Bytes::new()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("could not write `{name}` in 1 attempts"));
    lab.done_in("PUT", 1);

    proxy.always(Some(("PUT", Mishap::Answer(503, "SlowDown"))));
    let failure = Failure::from(objects.put("lasting", Bytes::new()).await.unwrap_err());
    let sentence = format!("could not write `{name}` in {ATTEMPTS} attempts: ");
    assert!(failure.message.starts_with(&sentence) && failure.message.contains("503"), "{}", failure.message);
    assert!(failure.hint.unwrap().contains("longtake train --resume"));
    lab.done_in("PUT", ATTEMPTS as usize);
    proxy.always(None);
    assert_eq!(objects.size("lasting").await.unwrap(), None);

    let elsewhere = server.url("run").replace("bucket", "no-such-bucket");
    let elsewhere = Objects::open_with(&elsewhere, &server.variables(proxy.port)).unwrap();
    let error = elsewhere.put("x", Bytes::new()).await.unwrap_err();
    assert!(matches!(error, ObjectError::NoStore { .. }), "{error}: {error:?}");
    assert!(error.hint().unwrap().contains("create the bucket"));
    if server.kind == Kind::S3 {
        let error = elsewhere.list("x").await.unwrap_err();
        assert!(matches!(error, ObjectError::NoStore { .. }), "{error}: {error:?}");
    }
    proxy.seen();
}

/// Commits that were written and not acknowledged, and saves that end half-way.
async fn commits(lab: &Lab) {
    let Lab { proxy, objects, .. } = lab;
    let store = CheckpointStore::new(objects.below("chain"));
    let (incarnation, mut appender) = take_over(&store, "owner").await.unwrap();
    save(&store, &mut appender, incarnation, 1).await.unwrap();
    for (step, mishap) in
        [(2, Mishap::DoneUnanswered), (3, Mishap::DoneBut(503)), (4, Mishap::Answer(500, ""))]
    {
        let manifest = put_parts(&store, incarnation, step).await.unwrap();
        let reference = store.put_manifest(&manifest).await.unwrap();
        // Every attempt, so that the coordinator is told that the commit has failed.
        proxy.always(Some(("PUT", mishap)));
        let error = appender.append(&manifest, &reference, false).await.unwrap_err();
        assert!(matches!(error, CheckpointError::Object(_)), "{mishap:?}: {error}");
        proxy.always(None);
        // Whether the commit exists already is found out when the store answers again.
        appender.append(&manifest, &reference, false).await.unwrap();
        assert_eq!(load_newest(&store).await.unwrap(), (Some(step), 0), "{mishap:?}");
    }
    // The answer is lost, then the store is gone for longer than the attempts last.
    let manifest = put_parts(&store, incarnation, 5).await.unwrap();
    let reference = store.put_manifest(&manifest).await.unwrap();
    proxy.next("PUT", &[Mishap::DoneUnanswered]);
    proxy.next("PUT", &[Mishap::Answer(500, ""); ATTEMPTS as usize - 1]);
    let error = appender.append(&manifest, &reference, false).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Object(_)), "{error}");
    assert!(proxy.is_done());
    appender.append(&manifest, &reference, false).await.unwrap();

    // A save ends at each of its writes in turn: three parts, the manifest, the commit. What a try has written stays.
    for well in [0, 1, 1, 1, 1] {
        proxy.after("PUT", well, Mishap::Answer(503, ""));
        assert!(save(&store, &mut appender, incarnation, 6).await.is_err());
        assert!(proxy.is_done());
        proxy.always(None);
        assert_eq!(load_newest(&store).await.unwrap(), (Some(5), 0));
    }
    save(&store, &mut appender, incarnation, 6).await.unwrap();
    let steps: Vec<u64> = store.list().await.unwrap().iter().map(|committed| committed.step.0).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6], "each once");
    assert!(store.chain().await.unwrap().damage.is_empty());
}

async fn survives(kind: Kind) {
    let Some(lab) = Lab::open(kind).await else { return };
    passing_failures(&lab).await;
    misleading_answers(&lab).await;
    lasting_failures(&lab).await;
    commits(&lab).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_survive_the_answers_of_s3() {
    survives(Kind::S3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_survive_the_answers_of_azure() {
    survives(Kind::Azure).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_survive_the_answers_of_google_cloud_storage() {
    survives(Kind::Gcs).await;
}
