//! The generated message types. Their conversions stand beside the domain types of [`super`].

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    reason = "generated from proto/longtake.proto, where each field is explained"
)]

tonic::include_proto!("longtake.v1");
