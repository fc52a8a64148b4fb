//! The roster's rules in virtual time, with the real gate: a world of pods that ping, fall silent, restart and leave.

mod rules;
mod silence;
mod world;
