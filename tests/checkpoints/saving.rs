//! A program that saves checkpoints into a folder until it is killed, and says which ones it was told are saved.

#![allow(clippy::print_stdout, reason = "the suite reads what was acknowledged")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::SystemTime;

use longtake_shared::checkpoint::{CheckpointStore, Retention};
use longtake_shared::hint::Failure;
use longtake_shared::objects::Objects;

mod support;

fn main() {
    let folder = std::env::args().nth(1).expect("the folder of the run");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let Err(failure) = runtime.expect("a runtime").block_on(save_for_ever(&folder));
    panic!("{failure:?}");
}

async fn save_for_ever(folder: &str) -> Result<std::convert::Infallible, Failure> {
    let store = CheckpointStore::new(Objects::open(folder)?);
    let owner = format!("process {} at {:?}", std::process::id(), SystemTime::now());
    let (incarnation, mut appender) = support::take_over(&store, &owner).await?;
    let mut step = support::load_newest(&store).await?.0.unwrap_or_default();
    loop {
        step += 1;
        say(&format!("begin {step}"));
        support::save(&store, &mut appender, incarnation, step).await?;
        say(&format!("saved {step}"));
        appender.sweep(Retention { newest: 2 }, &BTreeSet::new(), SystemTime::now()).await?;
    }
}

fn say(line: &str) {
    println!("{line}");
    // Nobody who is still there to be told has closed it.
    drop(std::io::stdout().flush());
}
