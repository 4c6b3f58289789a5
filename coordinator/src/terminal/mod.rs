//! What people and programs see. Data goes to standard output, everything else to standard error.
//!
//! [`console`] prints and is the only place that does; [`reporter`] shows a run as it goes on, in words made by
//! [`phrases`] and with rates from [`rate`]; [`summary`] says what a run leaves behind.

pub mod console;
pub mod metrics_file;
pub mod panics;
pub mod phrases;
pub mod rate;
pub mod reporter;
pub mod summary;

#[cfg(test)]
mod tests;
