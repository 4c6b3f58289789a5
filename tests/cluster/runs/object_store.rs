//! Runs whose checkpoints lie in a store behind HTTP, reached with the credentials of the environment.

use std::fs;

use longtake_shared::checkpoint::{CheckpointStore, Depth, Manifest};
use longtake_shared::objects::Objects;
use longtake_tests::Said;
use rustix::process::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::lab::{Lab, content};
use crate::proxy::{Mishap, Proxy};
use crate::servers::{Kind, Server};

/// Settings of a run in the bucket, of which something is left to prune.
const THERE: &str = "--set checkpoint.url=s3://bucket/runs --set checkpoint.keep=5";

/// A bucket that a server keeps, and the way to it.
struct Bucket {
    proxy: Proxy,
    server: Server,
    runtime: Runtime,
}

impl Bucket {
    /// Nothing where no server is installed.
    fn start() -> Option<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(Server::start(Kind::S3))?;
        let proxy = runtime.block_on(Proxy::start(&server));
        Some(Self { proxy, server, runtime })
    }

    /// A machine from which the bucket is reached.
    fn machine(&self) -> Lab {
        Lab::new().with_variables(self.server.variables(self.proxy.port))
    }

    /// The newest checkpoint of the run; all of it is read.
    fn newest(&self) -> Manifest {
        let variables = self.server.variables(self.server.port);
        let objects = Objects::open_with(&self.server.url("runs"), &variables).unwrap().below("tiny");
        let newest = self.runtime.block_on(CheckpointStore::new(objects).newest(Depth::Contents)).unwrap();
        assert!(newest.passed_over.is_empty(), "{:?}", newest.passed_over);
        newest.found.unwrap().1
    }
}

fn json(said: &Said) -> Value {
    assert_eq!(said.code, Some(0), "{said:?}");
    serde_json::from_str(&said.stdout).unwrap()
}

#[test]
fn a_run_in_s3_that_is_stopped_killed_and_moved_ends_with_the_same_bits() {
    let (Some(bucket), Some(other)) = (Bucket::start(), Bucket::start()) else { return };
    // Its weights hold a note of the settings, so these must be the same to the last one.
    let whole = other.machine();
    whole.train(THERE);

    let here = bucket.machine();
    let mut running = here.start(&format!("train tiny.toml {THERE}"));
    here.wait_for_step(&mut running, "train", 1);
    running.signal(Signal::TERM);
    let said = running.end();
    assert_eq!(said.code, Some(75), "{said:?}");
    let mut running = here.start("train --resume runs/tiny");
    here.wait_for_step(&mut running, "train", 5);
    running.signal(Signal::KILL);
    assert_eq!(running.end().code, None);
    assert!(!here.path("runs/tiny/parts").exists(), "checkpoints lie in the bucket");

    // The machine and its disk are lost; another one has the settings and the data.
    let elsewhere = bucket.machine();
    let said = elsewhere.run(&format!("train tiny.toml --resume runs/tiny {THERE}"));
    assert_eq!(said.code, Some(0), "{said:?}");
    let mut steps = here.steps();
    steps.extend(elsewhere.steps());
    assert_eq!(steps, whole.steps());
    assert_eq!(content(&bucket.newest()), content(&other.newest()));
    let best = |lab: &Lab| fs::read(lab.path("runs/tiny/best.safetensors")).unwrap();
    assert!(best(&elsewhere) == best(&whole), "the best weights differ");

    commands_know_the_bucket(&elsewhere);
    a_second_run_of_the_name_is_refused(&bucket);
    assert_eq!(content(&bucket.newest()), content(&other.newest()));
}

fn commands_know_the_bucket(lab: &Lab) {
    let listed = json(&lab.run("checkpoint list runs/tiny --json"));
    let listed = listed.as_array().unwrap();
    assert!(listed.len() >= 3 && listed.iter().all(|row| row["whole"] == true), "{listed:?}");
    assert_eq!(listed.last().unwrap()["step"], 10, "{listed:?}");
    let verified = json(&lab.run("checkpoint verify runs/tiny --json"));
    assert_eq!(verified["whole"], listed.len(), "{verified}");
    let pruned = json(&lab.run("checkpoint prune runs/tiny --keep 1 --json"));
    assert_eq!(pruned["spared_for_readers"], false, "{pruned}");
    let left = json(&lab.run("checkpoint list runs/tiny --json"));
    let left = left.as_array().unwrap();
    assert_eq!(pruned["checkpoints"], listed.len() - left.len(), "{pruned}");
    // The newest one and the best one.
    assert!(left.len() < listed.len() && left.len() <= 2 && left.last().unwrap()["step"] == 10, "{left:?}");
    let said = lab.run("checkpoint verify runs/tiny");
    assert!(said.stdout.contains("whole ("), "{said:?}");
}

fn a_second_run_of_the_name_is_refused(bucket: &Bucket) {
    let lab = bucket.machine();
    let said = lab.run(&format!("train tiny.toml {THERE}"));
    assert_eq!(said.code, Some(78), "{said:?}");
    let told = "`s3://bucket/runs/tiny` already holds the checkpoints of a run";
    assert!(said.stderr.contains(told) && said.stderr.contains("--resume runs/tiny"), "{said:?}");
    let said = lab.run(&format!("train tiny.toml --resume runs/other {THERE} --set run.name=other"));
    assert_eq!(said.code, Some(78), "{said:?}");
    let told = "`s3://bucket/runs/other` holds no whole checkpoint to go on from";
    assert!(said.stderr.contains(told), "{said:?}");
}

/// What S3 answers to a key that it does not know.
const UNKNOWN_KEY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>InvalidAccessKeyId</Code>\
    <Message>The AWS Access Key Id you provided does not exist in our records.</Message></Error>";

#[test]
fn wrong_credentials_are_one_sentence_and_new_ones_go_on() {
    let Some(bucket) = Bucket::start() else { return };
    let denied = |said: &Said| {
        assert_eq!(said.code, Some(1), "{said:?}");
        let errors: Vec<&str> = said.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{said:?}");
        let denied =
            errors[0].contains("access to `s3://bucket/runs/tiny/") && errors[0].contains("is denied");
        assert!(denied, "{said:?}");
        assert!(said.stderr.contains("hint: check the permissions and credentials"), "{said:?}");
    };
    let lab = bucket.machine();
    bucket.proxy.always(Some(("GET", Mishap::Answer(403, UNKNOWN_KEY))));
    denied(&lab.run(&format!("train tiny.toml {THERE}")));
    assert!(!lab.path("runs/tiny/config.json").exists(), "nothing has begun");
    bucket.proxy.always(None);

    // They may expire while the run goes on.
    let mut running = lab.start(&format!("train tiny.toml {THERE}"));
    lab.wait_for_step(&mut running, "pretrain", 4);
    bucket.proxy.always(Some(("PUT", Mishap::Answer(403, UNKNOWN_KEY))));
    denied(&running.end());
    bucket.proxy.always(None);
    let said = lab.run("train --resume runs/tiny");
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(bucket.newest().step.0, 10);
}
