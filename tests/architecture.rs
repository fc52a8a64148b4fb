//! Holds the rule of the rooms (`roles → adapters → decide`, `api → decide`), that no files import each other in a
//! circle, that a type name has one meaning, and that `docs/architecture.md` names what exists.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "architecture/circles.rs"]
mod circles;
#[path = "architecture/named_tests.rs"]
mod named_tests;
#[path = "architecture/picture.rs"]
mod picture;
#[path = "architecture/recipes.rs"]
mod recipes;
#[path = "architecture/rooms.rs"]
mod rooms;
#[path = "architecture/source.rs"]
mod source;
