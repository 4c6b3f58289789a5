//! The one error for a message that cannot be converted from the wire, or that comes from the wrong peer.

use super::PROTOCOL_VERSION;

/// A message that the receiver rejects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A required part is absent.
    #[error("the message lacks `{0}`")]
    Missing(&'static str),
    /// A field has an impossible value.
    #[error("`{field}` is `{value}`, which is not {expected}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// The value received.
        value: String,
        /// The kind of value expected.
        expected: &'static str,
    },
    /// The sender was built with another version of the protocol.
    #[error(
        "{sender} uses version {theirs} of the protocol, and its peer uses version {PROTOCOL_VERSION}: \
         both must run the same version of `longtake`"
    )]
    Version {
        /// The sender, such as `the agent`.
        sender: &'static str,
        /// Its version.
        theirs: u32,
    },
    /// The sender belongs to another run.
    #[error("the agent belongs to run `{theirs}`, this coordinator to run `{ours}`")]
    OtherRun {
        /// Run of the sender.
        theirs: String,
        /// Run of the receiver.
        ours: String,
    },
}

/// An address on the wire.
pub(super) fn address(field: &'static str, text: &str) -> Result<std::net::SocketAddr, Malformed> {
    text.parse().map_err(|_| Malformed::Field {
        field,
        value: text.to_owned(),
        expected: "an address such as `10.0.0.1:4000`",
    })
}

/// Checks that the sender was built with the same version of the protocol.
pub(super) fn same_version(sender: &'static str, theirs: u32) -> Result<(), Malformed> {
    if theirs == PROTOCOL_VERSION { Ok(()) } else { Err(Malformed::Version { sender, theirs }) }
}
