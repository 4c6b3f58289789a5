//! What people and programs see. Data goes to standard output, everything else to standard error.
//!
//! [`crate::terminal::console`] prints and is the only place that does; [`crate::terminal::reporter`] shows a run as it goes on, in words made by
//! [`crate::terminal::phrases`] and with rates from [`crate::terminal::rate`]; [`crate::terminal::summary`] says what a run leaves behind.

pub mod console;
pub mod metrics_file;
pub mod panics;
pub mod phrases;
pub mod rate;
pub mod reporter;
pub mod summary;

#[cfg(test)]
mod tests;
