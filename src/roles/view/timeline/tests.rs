//! The bounds of the time lines.
